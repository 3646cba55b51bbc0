#include "kernels/cpu/attention_isa.inl"
