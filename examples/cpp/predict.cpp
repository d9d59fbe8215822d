// predict MODEL_FOLDER IMAGE...
#include <array>
#include <cstdint>
#include <iostream>
#include <string>

#include <onnxruntime_cxx_api.h>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

// RGB; imread turns the image as EXIF says, and drops transparency.
cv::Mat rgb(const std::string& path) {
  cv::Mat image = cv::imread(path, cv::IMREAD_COLOR);
  if (image.empty()) throw std::runtime_error(path + " is no image");
  cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
  return image;
}

int main(int argc, char** argv) {
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "headstart");
  Ort::Session session(env, (std::string(argv[1]) + "/model.onnx").c_str(), Ort::SessionOptions{});
  Ort::AllocatorWithDefaultOptions allocator;
  auto classes = session.GetModelMetadata().LookupCustomMetadataMapAllocated("classes", allocator);
  std::cout << "classes: " << classes.get() << "\n";  // a JSON list, in the order of the indices

  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<const char*, 1> inputs{"image"};
  const std::array<const char*, 3> outputs{"probabilities", "label_index", "novelty"};
  for (int i = 2; i < argc; ++i) {
    cv::Mat image = rgb(argv[i]);
    const std::array<int64_t, 4> shape{1, image.rows, image.cols, 3};
    Ort::Value input = Ort::Value::CreateTensor<uint8_t>(
        memory, image.data, image.total() * image.elemSize(), shape.data(), shape.size());
    auto found = session.Run(Ort::RunOptions{nullptr}, inputs.data(), &input, 1, outputs.data(), outputs.size());
    const int64_t best = *found[1].GetTensorData<int64_t>();
    std::cout << argv[i] << ": class " << best << ", probability " << found[0].GetTensorData<float>()[best]
              << ", novelty " << *found[2].GetTensorData<float>() << "\n";
  }
}
