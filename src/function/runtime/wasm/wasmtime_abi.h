/* function/runtime/wasm/wasmtime_abi.h - the part of wasmtime's C interface that wasm.c uses.
 *
 * The library comes from PyPI's wheel (tools/deps), without headers, and is looked for when a function needs it: so
 * its functions are pointers in a table that wasm_abi_load() fills. Declared as documented for wasmtime 50
 * (docs.wasmtime.dev/c-api). Structs that the library fills in are only handed back to it; they have room to
 * spare, in case a later version needs more. What a byte vector and an extern look like is fixed since wasmtime 1. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wasm_bytes { /* wasm_byte_vec_t, wasm_name_t; freed by wasm_byte_vec_delete() */
    size_t n;
    char *p;
};
struct wasm_list { /* of wasm_frame_t *, wasm_exporttype_t *, wasm_importtype_t * */
    size_t n;
    void **p;
};
struct wasm_instance {
    uint64_t opaque[8];
};
struct wasm_extern {
    uint8_t kind; /* 0: a function; 3: a memory */
    uint64_t of[8];
};
enum { WASM_EXTERN_FUNC = 0, WASM_EXTERN_MEMORY = 3, WASM_TYPE_I32 = 0 };
enum { WASM_TRAP_INTERRUPT = 10, WASM_TRAP_UNREACHABLE = 9 };

union wasm_raw { /* an argument on its way in, or the result on its way out */
    int32_t i32;
    uint64_t all[2];
};
/* NULL, or a trap. */
typedef void *wasm_host_fn(void *arg, void *caller, union wasm_raw *args, size_t n);
typedef ptrdiff_t wasm_write_fn(void *arg, const unsigned char *p, size_t n); /* -errno, or how many were taken */

/* ---- components: values carry their kind, what is in them belongs to the library's allocator ---- */

enum wasm_kind {
    WASM_BOOL = 0, WASM_U8 = 2, WASM_U16 = 4, WASM_U32 = 6, WASM_U64 = 8, WASM_STRING = 12, WASM_LIST = 13, WASM_RECORD = 14,
    WASM_TUPLE = 15, WASM_VARIANT = 16, WASM_ENUM = 17, WASM_OPTION = 18, WASM_RESULT = 19, WASM_RESOURCE = 21
};
struct wasm_val;
struct wasm_vals {
    size_t n;
    struct wasm_val *p;
};
struct wasm_val {
    uint8_t kind;
    union {
        bool boolean;
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        struct wasm_bytes string; /* of an enum, too */
        struct wasm_vals list;    /* of a tuple, too */
        struct {
            size_t n;
            struct wasm_field *p;
        } record;
        struct {
            struct wasm_bytes name;
            struct wasm_val *val; /* NULL: none */
        } variant;
        struct {
            bool ok;
            struct wasm_val *val;
        } result;
        struct wasm_val *option;
        void *resource;
        uint64_t room[3];
    } of;
};
struct wasm_field {
    struct wasm_bytes name;
    struct wasm_val val;
};
struct wasm_valtype {
    uint8_t kind; /* the library's WASMTIME_COMPONENT_VALTYPE_...: */
    void *of;
};
enum { WASM_TYPE_ENUM = 17, WASM_TYPE_VARIANT = 16, WASM_TYPE_RESULT = 19 };
struct wasm_item {
    uint8_t kind;
    union {
        void *ptr;
        struct wasm_valtype type;
    } of;
};
enum { WASM_ITEM_INSTANCE = 1, WASM_ITEM_FUNC = 3, WASM_ITEM_RESOURCE = 4, WASM_ITEM_TYPE = 6 };
struct wasm_component_instance {
    uint64_t opaque[4];
};
struct wasm_component_func {
    uint64_t opaque[6];
};
/* NULL, or an error, which ends the component. */
typedef void *wasm_component_fn(void *arg, void *context, const void *type, struct wasm_val *args, size_t n, struct wasm_val *rets,
                                size_t rets_n);

/* X(result, name, arguments) */
#define WASM_ABI(X)                                                                                          \
    X(void *, wasm_config_new, (void))                                                                       \
    X(void *, wasm_engine_new_with_config, (void *config))                                                   \
    X(void, wasmtime_config_epoch_interruption_set, (void *config, bool on))                                 \
    X(void *, wasmtime_pooling_allocation_config_new, (void))                                                \
    X(void, wasmtime_pooling_allocation_config_delete, (void *pool))                                         \
    X(void, wasmtime_pooling_allocation_config_total_core_instances_set, (void *pool, uint32_t n))           \
    X(void, wasmtime_pooling_allocation_config_total_component_instances_set, (void *pool, uint32_t n))      \
    X(void, wasmtime_pooling_allocation_config_total_memories_set, (void *pool, uint32_t n))                 \
    X(void, wasmtime_pooling_allocation_config_total_tables_set, (void *pool, uint32_t n))                   \
    X(void, wasmtime_pooling_allocation_config_total_stacks_set, (void *pool, uint32_t n))                   \
    X(void, wasmtime_pooling_allocation_config_total_gc_heaps_set, (void *pool, uint32_t n))                 \
    X(void, wasmtime_pooling_allocation_config_table_elements_set, (void *pool, size_t n))                   \
    X(void, wasmtime_pooling_allocation_config_max_core_instance_size_set, (void *pool, size_t bytes))       \
    X(void, wasmtime_pooling_allocation_config_linear_memory_keep_resident_set, (void *pool, size_t bytes))  \
    X(void, wasmtime_pooling_allocation_strategy_set, (void *config, const void *pool))                      \
    X(void, wasmtime_engine_increment_epoch, (void *engine))                                                 \
    X(void *, wasmtime_module_new, (void *engine, const void *wasm, size_t n, void **ret))                   \
    X(void *, wasmtime_wat2wasm, (const char *text, size_t n, struct wasm_bytes *ret))                       \
    X(void *, wasmtime_module_serialize, (const void *module, struct wasm_bytes *ret))                       \
    X(void *, wasmtime_module_deserialize_file, (void *engine, const char *path, void **ret))                \
    X(void, wasmtime_module_exports, (const void *module, struct wasm_list *ret))                            \
    X(void, wasmtime_module_imports, (const void *module, struct wasm_list *ret))                            \
    X(const struct wasm_bytes *, wasm_exporttype_name, (const void *export_type))                            \
    X(const void *, wasm_exporttype_type, (const void *export_type))                                         \
    X(const struct wasm_bytes *, wasm_importtype_name, (const void *import_type))                            \
    X(uint8_t, wasm_externtype_kind, (const void *type))                                                     \
    X(const void *, wasm_externtype_as_functype_const, (const void *type))                                   \
    X(const struct wasm_list *, wasm_functype_params, (const void *type))                                    \
    X(const struct wasm_list *, wasm_functype_results, (const void *type))                                   \
    X(void *, wasmtime_linker_new, (void *engine))                                                           \
    X(void *, wasmtime_linker_define_wasi, (void *linker))                                                   \
    X(void, wasmtime_linker_allow_shadowing, (void *linker, bool on))                                        \
    X(void *, wasmtime_linker_define_func_unchecked,                                                         \
      (void *linker, const char *module, size_t module_n, const char *name, size_t name_n, const void *type, \
       wasm_host_fn *f, void *arg, void (*done)(void *)))                                                    \
    X(void *, wasm_valtype_new, (uint8_t kind))                                                              \
    X(void, wasm_valtype_vec_new, (struct wasm_list *ret, size_t n, void *const *types))                     \
    X(void *, wasm_functype_new, (struct wasm_list *params, struct wasm_list *results))                      \
    X(void, wasm_functype_delete, (void *type))                                                              \
    X(bool, wasmtime_caller_export_get, (void *caller, const char *name, size_t n, struct wasm_extern *ret)) \
    X(void *, wasmtime_caller_context, (void *caller))                                                       \
    X(uint8_t *, wasmtime_memory_data, (const void *context, const void *memory))                            \
    X(void *, wasmtime_linker_instantiate_pre, (const void *linker, const void *module, void **ret))         \
    X(void *, wasmtime_instance_pre_instantiate,                                                             \
      (const void *pre, void *context, struct wasm_instance *ret, void **ret_trap))                          \
    X(bool, wasmtime_instance_export_get,                                                                    \
      (void *context, const struct wasm_instance *i, const char *name, size_t n, struct wasm_extern *ret))   \
    X(void *, wasmtime_func_call,                                                                            \
      (void *context, const void *func, const void *args, size_t n, void *ret, size_t ret_n, void **ret_trap)) \
    X(size_t, wasmtime_memory_data_size, (const void *context, const void *memory))                          \
    X(void *, wasmtime_store_new, (void *engine, void *data, void (*done)(void *)))                          \
    X(void *, wasmtime_store_context, (void *store))                                                         \
    X(void, wasmtime_store_limiter,                                                                          \
      (void *store, int64_t memory, int64_t table_elements, int64_t instances, int64_t tables, int64_t memories)) \
    X(void, wasmtime_store_delete, (void *store))                                                            \
    X(void, wasmtime_context_set_epoch_deadline, (void *context, uint64_t ticks))                            \
    X(void *, wasmtime_context_set_wasi, (void *context, void *wasi))                                        \
    X(void *, wasi_config_new, (void))                                                                       \
    X(bool, wasi_config_set_argv, (void *wasi, size_t n, const char *const *argv))                           \
    X(bool, wasi_config_set_env, (void *wasi, size_t n, const char *const *names, const char *const *values)) \
    X(void, wasi_config_set_stdin_bytes, (void *wasi, struct wasm_bytes *bytes))                             \
    X(void, wasi_config_set_stdout_custom, (void *wasi, wasm_write_fn *write, void *arg, void (*done)(void *))) \
    X(void, wasi_config_set_stderr_custom, (void *wasi, wasm_write_fn *write, void *arg, void (*done)(void *))) \
    X(bool, wasi_config_preopen_dir, (void *wasi, const char *host, const char *guest, bool writable))       \
    X(void, wasm_byte_vec_new, (struct wasm_bytes *ret, size_t n, const void *p))                            \
    X(void, wasm_byte_vec_delete, (struct wasm_bytes *v))                                                    \
    X(void, wasmtime_error_message, (const void *error, struct wasm_bytes *ret))                             \
    X(bool, wasmtime_error_exit_status, (const void *error, int *ret))                                       \
    X(void, wasmtime_error_wasm_trace, (const void *error, struct wasm_list *ret))                           \
    X(void, wasmtime_error_delete, (void *error))                                                            \
    X(void, wasm_trap_message, (const void *trap, struct wasm_bytes *ret))                                   \
    X(void, wasm_trap_trace, (const void *trap, struct wasm_list *ret))                                      \
    X(bool, wasmtime_trap_code, (const void *trap, uint8_t *ret))                                            \
    X(void, wasm_trap_delete, (void *trap))                                                                  \
    X(const struct wasm_bytes *, wasmtime_frame_func_name, (const void *frame))                              \
    X(uint32_t, wasm_frame_func_index, (const void *frame))                                                  \
    X(void, wasm_frame_vec_delete, (struct wasm_list *list))                                                 \
    X(void, wasm_exporttype_vec_delete, (struct wasm_list *list))                                            \
    X(void, wasm_importtype_vec_delete, (struct wasm_list *list))                                            \
    X(void, wasmtime_config_wasm_component_model_set, (void *config, bool on))                               \
    X(void, wasmtime_config_wasm_component_model_async_set, (void *config, bool on))                         \
    X(void, wasmtime_pooling_allocation_config_max_component_instance_size_set, (void *pool, size_t bytes))  \
    X(void *, wasmtime_error_new, (const char *text))                                                        \
    X(void *, wasmtime_component_new, (void *engine, const void *wasm, size_t n, void **ret))                \
    X(void *, wasmtime_component_serialize, (const void *component, struct wasm_bytes *ret))                 \
    X(void *, wasmtime_component_deserialize_file, (void *engine, const char *path, void **ret))             \
    X(void *, wasmtime_component_type, (const void *component))                                              \
    X(void, wasmtime_component_type_delete, (void *type))                                                    \
    X(size_t, wasmtime_component_type_import_count, (const void *type, const void *engine))                  \
    X(bool, wasmtime_component_type_import_nth,                                                              \
      (const void *type, const void *engine, size_t i, const char **ret, size_t *ret_n, void **ret_extern))  \
    X(size_t, wasmtime_component_type_export_count, (const void *type, const void *engine))                  \
    X(bool, wasmtime_component_type_export_nth,                                                              \
      (const void *type, const void *engine, size_t i, const char **ret, size_t *ret_n, void **ret_extern))  \
    X(size_t, wasmtime_component_instance_type_export_count, (const void *type, const void *engine))         \
    X(bool, wasmtime_component_instance_type_export_nth,                                                     \
      (const void *type, const void *engine, size_t i, const char **ret, size_t *ret_n, void **ret_extern))  \
    X(void, wasmtime_component_extern_type, (const void *of, struct wasm_item *ret))                         \
    X(void, wasmtime_component_extern_delete, (void *of))                                                    \
    X(void, wasmtime_component_item_delete, (struct wasm_item *item))                                        \
    X(bool, wasmtime_component_func_type_result, (const void *type, struct wasm_valtype *ret))               \
    X(bool, wasmtime_component_result_type_err, (const void *type, struct wasm_valtype *ret))                \
    X(size_t, wasmtime_component_enum_type_names_count, (const void *type))                                  \
    X(bool, wasmtime_component_enum_type_names_nth, (const void *type, size_t i, const char **ret, size_t *ret_n)) \
    X(void, wasmtime_component_valtype_delete, (struct wasm_valtype *type))                                  \
    X(void *, wasmtime_component_get_export_index, (const void *component, const void *of, const char *name, size_t n)) \
    X(bool, wasmtime_component_instance_get_func,                                                            \
      (const struct wasm_component_instance *i, void *context, const void *index, struct wasm_component_func *ret)) \
    X(void *, wasmtime_component_func_call,                                                                  \
      (const struct wasm_component_func *f, void *context, const struct wasm_val *args, size_t n, struct wasm_val *rets, size_t rets_n)) \
    X(void *, wasmtime_component_linker_new, (void *engine))                                                 \
    X(void, wasmtime_component_linker_delete, (void *linker))                                                \
    X(void *, wasmtime_component_linker_root, (void *linker))                                                \
    X(void *, wasmtime_component_linker_add_wasip2, (void *linker))                                          \
    X(void *, wasmtime_component_linker_instance_add_instance, (void *in, const char *name, size_t n, void **ret)) \
    X(void *, wasmtime_component_linker_instance_add_func,                                                   \
      (void *in, const char *name, size_t n, wasm_component_fn *f, void *arg, void (*done)(void *)))         \
    X(void *, wasmtime_component_linker_instance_add_resource,                                               \
      (void *in, const char *name, size_t n, const void *type, void *(*drop)(void *arg, void *context, uint32_t rep), void *arg, \
       void (*done)(void *)))                                                                                \
    X(void, wasmtime_component_linker_instance_delete, (void *in))                                           \
    X(void *, wasmtime_component_linker_instantiate,                                                         \
      (const void *linker, void *context, const void *component, struct wasm_component_instance *ret))       \
    X(void *, wasmtime_component_resource_type_new_host, (uint32_t type))                                    \
    X(void, wasmtime_component_resource_type_delete, (void *type))                                           \
    X(void *, wasmtime_component_resource_host_new, (bool own, uint32_t rep, uint32_t type))                 \
    X(void, wasmtime_component_resource_host_delete, (void *host))                                           \
    X(uint32_t, wasmtime_component_resource_host_rep, (const void *host))                                    \
    X(uint32_t, wasmtime_component_resource_host_type, (const void *host))                                   \
    X(bool, wasmtime_component_resource_host_owned, (const void *host))                                      \
    X(void, wasmtime_component_resource_any_delete, (void *any))                                             \
    X(void *, wasmtime_component_resource_any_to_host, (void *context, const void *any, void **ret))         \
    X(void *, wasmtime_component_resource_host_to_any, (void *context, const void *host, void **ret))        \
    X(void, wasmtime_component_vallist_new_uninit, (struct wasm_vals *ret, size_t n))                        \
    X(struct wasm_val *, wasmtime_component_val_new, (struct wasm_val *moved))                               \
    X(void, wasmtime_component_valrecord_new_uninit, (void *ret, size_t n))                                  \
    X(void, wasmtime_component_val_delete, (struct wasm_val *v))

struct wasm_abi {
#define X(result, name, args) result(*name) args;
    WASM_ABI(X)
#undef X
};
