// The part of OpenCV that the example uses, for tests without OpenCV: 8- and 16-bit colour.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#define CV_8U 0
#define CV_16U 2
#define CV_8UC3 16
#define CV_16UC3 18

namespace cv {

struct Size {
  Size(int w, int h) : width(w), height(h) {}
  int width, height;
};

class Mat {
 public:
  Mat() = default;
  Mat(int height, int width, int of_type)
      : rows(height), cols(width), type_(of_type),
        bytes_(std::make_shared<std::vector<unsigned char>>(total() * elemSize())),
        data(bytes_->data()) {}

  bool empty() const { return !bytes_; }
  int type() const { return type_; }
  int depth() const { return type_ & 7; }
  bool isContinuous() const { return true; }
  Mat clone() const {
    Mat copy(rows, cols, type_);
    *copy.bytes_ = *bytes_;
    return copy;
  }
  std::size_t total() const { return static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols); }
  std::size_t elemSize() const { return depth() == CV_16U ? 6 : 3; }

  int rows = 0, cols = 0;

 private:
  int type_ = CV_8UC3;
  std::shared_ptr<std::vector<unsigned char>> bytes_;

 public:
  unsigned char* data = nullptr;
};

inline void convertScaleAbs(const Mat& from, Mat& to, double alpha) {
  const Mat source = from;
  Mat result(source.rows, source.cols, CV_8UC3);
  const auto* values = reinterpret_cast<const unsigned short*>(source.data);
  for (std::size_t i = 0; i < 3 * source.total(); ++i)
    result.data[i] = static_cast<unsigned char>(values[i] * alpha + 0.5);
  to = result;
}

}  // namespace cv
