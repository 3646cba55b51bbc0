#include "kernels/activation.h"

#include "kernels/dispatch.h"

namespace caravan {

CARAVAN_TWINS(swiglu_forward)
CARAVAN_TWINS(swiglu_backward)
CARAVAN_TWINS(gelu_forward)
CARAVAN_TWINS(gelu_backward)
CARAVAN_TWINS(add_inplace)
CARAVAN_TWINS(convert)
CARAVAN_TWINS(fill_zero)

void swiglu_forward(const Exec& exec, Ptr out, ConstPtr gate, ConstPtr up, int64_t count) {
  CARAVAN_DISPATCH(swiglu_forward, exec, out, gate, up, count);
}

void swiglu_backward(const Exec& exec, Ptr dgate, Ptr dup, ConstPtr dout, ConstPtr gate, ConstPtr up, int64_t count) {
  CARAVAN_DISPATCH(swiglu_backward, exec, dgate, dup, dout, gate, up, count);
}

void gelu_forward(const Exec& exec, Ptr out, ConstPtr x, int64_t count) {
  CARAVAN_DISPATCH(gelu_forward, exec, out, x, count);
}

void gelu_backward(const Exec& exec, Ptr dx, ConstPtr dout, ConstPtr x, int64_t count) {
  CARAVAN_DISPATCH(gelu_backward, exec, dx, dout, x, count);
}

void add_inplace(const Exec& exec, Ptr y, ConstPtr x, int64_t count) {
  CARAVAN_DISPATCH(add_inplace, exec, y, x, count);
}

void convert(const Exec& exec, Ptr y, ConstPtr x, int64_t count) { CARAVAN_DISPATCH(convert, exec, y, x, count); }

void fill_zero(const Exec& exec, Ptr y, int64_t count) { CARAVAN_DISPATCH(fill_zero, exec, y, count); }

}  // namespace caravan
