// Reads binary PPM and PGM (P6, P5; 8 bits, or 16 for a maximum above 255), and nothing else.
#pragma once

#include <opencv2/core.hpp>
#include <sstream>
#include <string>

namespace cv {

enum { IMREAD_COLOR = 1, IMREAD_ANYDEPTH = 2 };

inline Mat imdecode(const std::vector<unsigned char>& bytes, int) {
  std::istringstream file(std::string(bytes.begin(), bytes.end()));
  std::string kind;
  int width = 0, height = 0, maximum = 0;
  file >> kind >> width >> height >> maximum;
  if (!file || (kind != "P6" && kind != "P5")) return Mat();
  file.get();
  const bool wide = maximum > 255;
  Mat image(height, width, wide ? CV_16UC3 : CV_8UC3);
  auto* wides = reinterpret_cast<unsigned short*>(image.data);
  for (std::size_t pixel = 0; pixel < image.total(); ++pixel)
    for (std::size_t channel = 3, value = 0; channel-- > 0;) {  // the file is RGB, OpenCV BGR
      if (kind == "P6" || channel == 2) {
        value = static_cast<std::size_t>(file.get());
        if (wide) value = value * 256 + static_cast<std::size_t>(file.get());
      }
      if (wide)
        wides[3 * pixel + channel] = static_cast<unsigned short>(value);
      else
        image.data[3 * pixel + channel] = static_cast<unsigned char>(value);
    }
  return file ? image : Mat();
}

}  // namespace cv
