#include "kernels/cpu/activation_isa.inl"
