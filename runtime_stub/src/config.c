/* The rewriter's answer to the runtime's questions; the rewriter fills it in (abi.h). In a file of its own: where the compiler sees
 * the initialiser it folds the zeros into the code. */
#include "../include/rt.h"

const struct flk_config flk_config __attribute__((section(".flk_config"), aligned(64))) = {.magic = FLK_CONFIG_MAGIC};
