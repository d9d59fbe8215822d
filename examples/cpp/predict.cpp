// predict MODEL_FOLDER IMAGE...
#include <iomanip>
#include <iostream>

#include <openvino/openvino.hpp>

#include "decode.hpp"

// A string of the model's metadata.
std::string fact(const std::shared_ptr<ov::Model>& model, const std::string& name) {
  return model->get_rt_info<std::string>("framework", name);
}

int main(int argc, char** argv) {
  ov::Core core;
  const auto model = core.read_model(std::string(argv[1]) + "/model.onnx");
  // float32: else OpenVINO takes bfloat16 where a processor has it.
  auto request = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32)).create_infer_request();

  const std::string json = "{\"classes\": " + fact(model, "classes") + "}";
  const cv::FileStorage list(json, cv::FileStorage::READ | cv::FileStorage::MEMORY);
  std::vector<std::string> classes;
  list["classes"] >> classes;
  const float abstain_below = std::stof(fact(model, "abstain_below"));
  const int bits = model->has_rt_info("framework", "bits") ? std::stoi(fact(model, "bits")) : 16;

  for (int i = 2; i < argc; ++i) {
    cv::Mat image = rgb(argv[i], bits);
    const ov::Shape shape{1, static_cast<size_t>(image.rows), static_cast<size_t>(image.cols), 3};
    request.set_tensor("image", ov::Tensor(ov::element::u8, shape, image.data));
    request.infer();
    const float* probabilities = request.get_tensor("probabilities").data<float>();
    const auto best = request.get_tensor("label_index").data<int64_t>()[0];
    std::cout << std::setprecision(9) << "{\"path\": \"" << argv[i] << "\", \"label\": \"" << classes[best]
              << "\", \"probabilities\": [";
    for (size_t c = 0; c < classes.size(); ++c) std::cout << (c ? ", " : "") << probabilities[c];
    std::cout << "], \"abstains\": " << (probabilities[best] < abstain_below ? "true" : "false")
              << ", \"novelty\": " << request.get_tensor("novelty").data<float>()[0] << "}\n";
  }
}
