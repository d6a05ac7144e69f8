// Picture file -> model input, by the rules of runtime/image_file.py and runtime/preprocess.py.
#pragma once

#include <algorithm>
#include <filesystem>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <vector>

#include "manifest.hpp"

/// Whether a JPEG or PNG was cut off: OpenCV fills what is missing with grey, without a word.
inline bool is_truncated(const std::string& data) {
  const auto last = [&](const char* mark) { return data.rfind(mark); };
  if (data.rfind("\xff\xd8\xff", 0) == 0)
    return last("\xff\xd9") == std::string::npos || last("\xff\xd9") < last("\xff\xda");
  return data.rfind("\x89PNG", 0) == 0 && last("IEND") == std::string::npos;
}

/// A picture of any mode as uint8 BGR, with its EXIF orientation applied and alpha dropped.
inline cv::Mat read_picture(const std::filesystem::path& path) {
  const std::string data = read_file(path, "Is the name right?");
  if (data.empty() || is_truncated(data))
    throw Error(path.string() + " is " + (data.empty() ? "empty" : "truncated") +
                ", expected a whole picture");
  const std::vector<unsigned char> bytes(data.begin(), data.end());
  cv::Mat image = cv::imdecode(bytes, cv::IMREAD_COLOR | cv::IMREAD_ANYDEPTH);
  if (image.empty()) throw Error(path.string() + " is not a picture, or damaged");
  // By the fixed factor, never by the picture's own range.
  if (image.depth() == CV_16U) cv::convertScaleAbs(image, image, 255.0 / 65535.0);
  if (image.type() != CV_8UC3)
    throw Error(path.string() + " has other pixels than 8 or 16 bits; convert it");
  return image;
}

/// Resizes to the model's size; the aspect ratio is not kept.
inline cv::Mat resize_to(const cv::Mat& image, int height, int width) {
  if (image.rows == height && image.cols == width) return image;
  cv::Mat smaller, frame;
  // In two steps: OpenCV's area rule quietly turns bilinear when one of the sides grows.
  const cv::Size shrunk(std::min(image.cols, width), std::min(image.rows, height));
  cv::resize(image, smaller, shrunk, 0, 0, cv::INTER_AREA);
  cv::resize(smaller, frame, cv::Size(width, height), 0, 0, cv::INTER_LINEAR);
  return frame;
}
