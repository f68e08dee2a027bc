/* Whatever bytes a client sends as HTTP/1.1 or HTTP/2, the server lives on and lets go of it. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    one("", p, n);
    return 0;
}
