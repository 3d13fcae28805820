// A step of TVM's, a count of Rust's, and everything that makes a build differ from the next.
#include <tvm/ffi/c_api.h>
#include <tvm/runtime.h>

#include <stdexcept>
#include <string>

#define MLC_EXPORT extern "C" __attribute__((visibility("default")))

extern "C" size_t tokenizers_count(const char* text, size_t length);

MLC_EXPORT long mlc_step(long value) {
  TVMFFIVersion version;
  TVMFFIGetVersion(&version);
  return tvm::runtime::Module::Load("engine").Step(value) + version.major;
}

MLC_EXPORT long mlc_tokens(const char* text) {
  try {
    const std::string copy(text);
    if (copy.empty()) throw std::invalid_argument("empty");
    return static_cast<long>(tokenizers_count(copy.data(), copy.size()));
  } catch (const std::invalid_argument&) {
    return -1;
  }
}

MLC_EXPORT const char* mlc_built() {
  static const std::string text = __FILE__ " " __DATE__ " " __TIME__ " " MLC_COMMIT " " MLC_DATA;
  return text.c_str();
}
