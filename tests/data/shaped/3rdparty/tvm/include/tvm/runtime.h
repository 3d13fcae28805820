#pragma once

#include <string>

namespace tvm {
namespace runtime {

class __attribute__((visibility("default"))) Module {
 public:
  static Module Load(const std::string& name);
  long Step(long value) const;

 private:
  long length_ = 0;
};

}  // namespace runtime
}  // namespace tvm
