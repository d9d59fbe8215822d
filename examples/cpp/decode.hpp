#pragma once
#include <stdexcept>
#include <string>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>

// uint8, RGB, upright as EXIF says, transparent pixels white; 16 bits a channel are scaled by the `bits` that hold values.
inline cv::Mat rgb(const std::string& path, int bits) {
  cv::Mat image = cv::imread(path, cv::IMREAD_UNCHANGED);  // which keeps transparency, and does not turn
  if (image.empty()) throw std::runtime_error(path + " is no image");
  if (image.channels() != 4) image = cv::imread(path, cv::IMREAD_COLOR | cv::IMREAD_ANYDEPTH);  // which turns
  const bool is_deep = image.depth() == CV_16U;
  const double white = is_deep ? (1 << bits) - 1 : 255, opaque = is_deep ? 65535 : 255;
  std::vector<cv::Mat> planes;
  cv::split(image, planes);
  for (int channel = 0; channel < 3; ++channel) {
    planes[channel].convertTo(planes[channel], CV_8U, 255 / white);
    if (planes.size() == 4) {
      cv::Mat levels, alpha;
      planes[channel].convertTo(levels, CV_32F, 1, -255);
      planes[3].convertTo(alpha, CV_32F, 1 / opaque);
      cv::Mat on_white = levels.mul(alpha) + 255;
      on_white.convertTo(planes[channel], CV_8U);
    }
  }
  cv::Mat pixels;
  cv::merge(std::vector<cv::Mat>{planes[2], planes[1], planes[0]}, pixels);
  return pixels;
}
