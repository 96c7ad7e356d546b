/* Integers by their sizes, and addresses of labels. */
#ifndef TYPES_H
#define TYPES_H

#include "../abi.h"

typedef flk_u64 u64;
typedef flk_u32 u32;
typedef flk_u16 u16;
typedef flk_u8 u8;
typedef long i64;

#define ADDR(label) ((u64)(label))

#endif
