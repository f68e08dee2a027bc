/* schema/deviceexpr.h - expressions that choose devices (DeviceClass, ResourceClaim): `device` with its driver,
 * attributes and capacity by domain and name.
 *
 * Programs are kept by their text, EXPRESSIONS_MAX of them; a cost limit bounds each run. Thread: one. */
#pragma once

#include "cel/cel.h"

struct device_exprs;
struct device_exprs *device_exprs_new(void);
void *device_exprs_free(struct device_exprs *x);
/* Is the device (of resource.k8s.io/v1 ResourceSlice) chosen? 1, 0, or -1 and why it could not be told. What is made
 * lies in the arena. */
int device_chosen(struct device_exprs *x, const char *expression, const char *driver, const struct val *device,
                  struct arena *a, struct err *err);
/* An environment that declares `device`; its types are in the arena. */
struct cel_env *device_env(struct arena *a, const struct cel_type **ret_type);
/* The attribute DOMAIN/NAME of a device, whose own names are in the domain of its driver. NULL: it has none. */
const struct val *device_attribute(struct arena *a, const char *driver, const struct val *device, const char *name);
