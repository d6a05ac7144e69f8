// Resizes by exact areas or bilinearly, with pixel centres as in OpenCV, and tells which on stderr.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <opencv2/core.hpp>
#include <utility>

namespace cv {

enum { INTER_LINEAR = 1, INTER_AREA = 3 };

/// Which source pixels make one result pixel along one side, and their weights.
inline std::vector<std::pair<int, double>> taps(int at, int from, int to, int rule) {
  const double scale = static_cast<double>(from) / to;
  std::vector<std::pair<int, double>> result;
  if (rule == INTER_AREA) {
    const double begin = at * scale, end = (at + 1) * scale;
    for (int i = static_cast<int>(begin); i < from && i < end; ++i)
      result.emplace_back(i, (std::min(end, i + 1.0) - std::max(begin, i * 1.0)) / scale);
    return result;
  }
  const double centre = (at + 0.5) * scale - 0.5;
  const double low = std::floor(centre);
  const auto inside = [&](double i) { return std::clamp(static_cast<int>(i), 0, from - 1); };
  return {{inside(low), 1 - (centre - low)}, {inside(low + 1), centre - low}};
}

inline void resize(const Mat& from, Mat& to, Size size, double, double, int rule) {
  std::fprintf(stderr, "resize %dx%d to %dx%d %s\n", from.cols, from.rows, size.width, size.height,
               rule == INTER_AREA ? "area" : "linear");
  Mat result(size.height, size.width, CV_8UC3);
  for (int y = 0; y < size.height; ++y)
    for (int x = 0; x < size.width; ++x)
      for (int c = 0; c < 3; ++c) {
        double sum = 0;
        for (const auto& [row, vertical] : taps(y, from.rows, size.height, rule))
          for (const auto& [column, horizontal] : taps(x, from.cols, size.width, rule))
            sum += vertical * horizontal * from.data[3 * (row * from.cols + column) + c];
        result.data[3 * (y * size.width + x) + c] = static_cast<unsigned char>(sum + 0.5);
      }
  to = result;
}

}  // namespace cv
