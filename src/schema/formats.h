/* schema/formats.h - the formats of texts that a structural schema may name and that a stock server judges. */
#pragma once

#include "base/base.h"

/* Does s have the format (named with or without dashes)? A format that is not known lets everything pass. */
bool format_fits(const char *format, const char *s);
