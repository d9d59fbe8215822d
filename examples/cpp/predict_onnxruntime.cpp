// predict_onnxruntime MODEL_FOLDER IMAGE...
#include <array>
#include <iomanip>
#include <iostream>

#include <onnxruntime_cxx_api.h>

#include "decode.hpp"

int main(int argc, char** argv) {
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "headstart");
  Ort::Session session(env, (std::string(argv[1]) + "/model.onnx").c_str(), Ort::SessionOptions{});
  Ort::AllocatorWithDefaultOptions allocator;
  const auto metadata = session.GetModelMetadata();
  const auto fact = [&](const char* name) { return metadata.LookupCustomMetadataMapAllocated(name, allocator); };
  const std::string json = std::string("{\"classes\": ") + fact("classes").get() + "}";
  const cv::FileStorage list(json, cv::FileStorage::READ | cv::FileStorage::MEMORY);
  std::vector<std::string> classes;
  list["classes"] >> classes;
  const float abstain_below = std::stof(fact("abstain_below").get());
  const auto told_bits = fact("bits");
  const int bits = told_bits ? std::stoi(told_bits.get()) : 16;

  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<const char*, 1> inputs{"image"};
  const std::array<const char*, 3> outputs{"probabilities", "label_index", "novelty"};
  for (int i = 2; i < argc; ++i) {
    cv::Mat image = rgb(argv[i], bits);
    const std::array<int64_t, 4> shape{1, image.rows, image.cols, 3};
    Ort::Value input = Ort::Value::CreateTensor<uint8_t>(
        memory, image.data, image.total() * image.elemSize(), shape.data(), shape.size());
    auto found = session.Run(Ort::RunOptions{nullptr}, inputs.data(), &input, 1, outputs.data(), outputs.size());
    const float* probabilities = found[0].GetTensorData<float>();
    const int64_t best = *found[1].GetTensorData<int64_t>();
    std::cout << std::setprecision(9) << "{\"path\": \"" << argv[i] << "\", \"label\": \"" << classes[best]
              << "\", \"probabilities\": [";
    for (size_t c = 0; c < classes.size(); ++c) std::cout << (c ? ", " : "") << probabilities[c];
    std::cout << "], \"abstains\": " << (probabilities[best] < abstain_below ? "true" : "false")
              << ", \"novelty\": " << *found[2].GetTensorData<float>() << "}\n";
  }
}
