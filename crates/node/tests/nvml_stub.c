/* A stand-in for NVIDIA's management library: answers the calls that the node agent makes, from a text file that
 * tests write, so that the agent's real loading code runs without a GPU.
 *
 * The file lies next to the library and is called as it is, with ".state" after it. It holds lines of key=value and
 * is read anew at each call. A key that isn't there makes the call answer "not supported"; the value !N makes it
 * answer NVML's error number N. `gpu.N.error=E` makes every call about GPU N answer E, `hang=1` makes all calls wait
 * until the line is gone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define TIMEOUT 10
#define MOST 64

typedef int Return;
typedef struct { int index; char last_xid[64]; } Gpu;
typedef struct { Gpu *gpu; } EventSet;

static Gpu gpus[MOST];

/* Finds a key's value; 0 if it isn't there. */
static int find(const char *key, char *value, size_t size) {
    Dl_info self;
    char path[4096], line[512];
    if (!dladdr((void *)gpus, &self)) return 0;
    snprintf(path, sizeof path, "%s.state", self.dli_fname);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = strlen(key);
    int found = 0;
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\n")] = 0;
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static void hang(void) {
    char value[64];
    while (find("hang", value, sizeof value)) usleep(5000);
}

static Return text(const char *key, char *out, size_t size) {
    char value[256];
    hang();
    if (!find(key, value, sizeof value)) return NOT_SUPPORTED;
    if (value[0] == '!') return atoi(value + 1);
    snprintf(out, size, "%s", value);
    return SUCCESS;
}

static Return number(const char *key, unsigned long long *out) {
    char value[256];
    Return code = text(key, value, sizeof value);
    if (code == SUCCESS) *out = strtoull(value, NULL, 0);
    return code;
}

/* A reading of a GPU. */
static Return gpu_text(Gpu *gpu, const char *field, char *out, size_t size) {
    char key[128];
    unsigned long long error;
    snprintf(key, sizeof key, "gpu.%d.error", gpu->index);
    if (number(key, &error) == SUCCESS) return (Return)error;
    snprintf(key, sizeof key, "gpu.%d.%s", gpu->index, field);
    return text(key, out, size);
}

static Return gpu_number(Gpu *gpu, const char *field, unsigned long long *out) {
    char value[256];
    Return code = gpu_text(gpu, field, value, sizeof value);
    if (code == SUCCESS) *out = strtoull(value, NULL, 0);
    return code;
}

static Return gpu_uint(Gpu *gpu, const char *field, unsigned *out) {
    unsigned long long value;
    Return code = gpu_number(gpu, field, &value);
    if (code == SUCCESS) *out = (unsigned)value;
    return code;
}

Return nvmlInit_v2(void) {
    unsigned long long error;
    for (int i = 0; i < MOST; i++) gpus[i].index = i;
    return number("init", &error) == NOT_SUPPORTED ? SUCCESS : number("init", &error);
}

Return nvmlShutdown(void) { return SUCCESS; }

Return nvmlSystemGetDriverVersion(char *out, unsigned size) { return text("driver", out, size); }

Return nvmlDeviceGetCount_v2(unsigned *count) {
    unsigned long long value = 0;
    Return code = number("count", &value);
    *count = (unsigned)value;
    return code;
}

Return nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    unsigned long long count = 0;
    char key[128];
    unsigned long long error;
    Return code = number("count", &count);
    if (code != SUCCESS) return code;
    if (index >= count || index >= MOST) return INVALID_ARGUMENT;
    snprintf(key, sizeof key, "gpu.%u.error", index);
    if (number(key, &error) == SUCCESS) return (Return)error;
    *gpu = &gpus[index];
    return SUCCESS;
}

Return nvmlDeviceGetUUID(Gpu *gpu, char *out, unsigned size) { return gpu_text(gpu, "uuid", out, size); }
Return nvmlDeviceGetName(Gpu *gpu, char *out, unsigned size) { return gpu_text(gpu, "name", out, size); }

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} Memory;

Return nvmlDeviceGetMemoryInfo_v2(Gpu *gpu, Memory *memory) {
    if (memory->version != (sizeof(Memory) | 2u << 24)) return 25; /* argument version mismatch */
    Return code = gpu_number(gpu, "memory.total", &memory->total);
    if (code != SUCCESS) return code;
    code = gpu_number(gpu, "memory.used", &memory->used);
    memory->reserved = 0;
    memory->free = memory->total - memory->used;
    return code;
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} Pci;

static Return pci(Gpu *gpu, const char *field, Pci *out) {
    memset(out, 0, sizeof *out);
    Return code = gpu_text(gpu, field, out->bus_id, sizeof out->bus_id);
    if (code == SUCCESS) sscanf(out->bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    return code;
}

Return nvmlDeviceGetPciInfo_v3(Gpu *gpu, Pci *out) { return pci(gpu, "pci", out); }
Return nvmlDeviceGetEnforcedPowerLimit(Gpu *gpu, unsigned *out) { return gpu_uint(gpu, "power.limit", out); }
Return nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *out) { return gpu_uint(gpu, "power", out); }

Return nvmlDeviceGetTemperature(Gpu *gpu, unsigned sensor, unsigned *out) {
    return sensor == 0 ? gpu_uint(gpu, "temperature", out) : INVALID_ARGUMENT;
}

typedef struct { unsigned gpu, memory; } Utilization;

Return nvmlDeviceGetUtilizationRates(Gpu *gpu, Utilization *out) {
    if (gpu_uint(gpu, "utilization.memory", &out->memory) != SUCCESS) out->memory = 0;
    return gpu_uint(gpu, "utilization", &out->gpu);
}

Return nvmlDeviceGetMigMode(Gpu *gpu, unsigned *current, unsigned *pending) {
    Return code = gpu_uint(gpu, "mig", current);
    *pending = *current;
    return code;
}

Return nvmlDeviceGetTotalEccErrors(Gpu *gpu, unsigned type, unsigned counter, unsigned long long *out) {
    if (counter != 0) return NOT_SUPPORTED;
    return gpu_number(gpu, type == 1 ? "ecc.uncorrected.volatile" : "ecc.corrected.volatile", out);
}

Return nvmlDeviceGetRetiredPagesPendingStatus(Gpu *gpu, unsigned *out) {
    return gpu_uint(gpu, "retirement.pending", out);
}

Return nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *out) {
    return gpu_number(gpu, "throttle", out);
}

typedef struct {
    unsigned id, scope;
    long long timestamp, latency;
    unsigned type;
    Return code;
    union { double d; unsigned u; unsigned long long ull; } value;
} Field;

Return nvmlDeviceGetFieldValues(Gpu *gpu, int count, Field *fields) {
    unsigned long long ignored;
    /* A GPU in trouble fails the call, a field that isn't known just itself. */
    Return code = gpu_number(gpu, "fields", &ignored);
    if (code != SUCCESS && code != NOT_SUPPORTED) return code;
    for (int i = 0; i < count; i++) {
        char field[48];
        /* Traffic is told by port, in 64 bits. */
        if (fields[i].id == 138 || fields[i].id == 139) {
            snprintf(field, sizeof field, "field.%u.%u", fields[i].id, fields[i].scope);
            fields[i].type = 3;
            fields[i].code = gpu_number(gpu, field, &fields[i].value.ull);
            continue;
        }
        snprintf(field, sizeof field, "field.%u", fields[i].id);
        fields[i].type = 1;
        fields[i].code = gpu_uint(gpu, field, &fields[i].value.u);
    }
    return SUCCESS;
}

Return nvmlDeviceGetTemperatureThreshold(Gpu *gpu, unsigned which, unsigned *out) {
    if (which > 1) return INVALID_ARGUMENT;
    return gpu_uint(gpu, which == 0 ? "shutdown" : "slowdown", out);
}

Return nvmlDeviceGetClockInfo(Gpu *gpu, unsigned which, unsigned *out) {
    return which == 1 ? gpu_uint(gpu, "clock.sm", out) : which == 2 ? gpu_uint(gpu, "clock.memory", out) : INVALID_ARGUMENT;
}

Return nvmlDeviceGetNumFans(Gpu *gpu, unsigned *out) { return gpu_uint(gpu, "fans", out); }

Return nvmlDeviceGetFanSpeed_v2(Gpu *gpu, unsigned fan, unsigned *out) {
    char field[32];
    snprintf(field, sizeof field, "fan.%u", fan);
    return gpu_uint(gpu, field, out);
}

Return nvmlDeviceGetPcieThroughput(Gpu *gpu, unsigned way, unsigned *out) {
    return gpu_uint(gpu, way == 0 ? "pcie.tx" : "pcie.rx", out);
}

Return nvmlDeviceGetPcieReplayCounter(Gpu *gpu, unsigned *out) { return gpu_uint(gpu, "pcie.replays", out); }
Return nvmlDeviceGetCurrPcieLinkGeneration(Gpu *gpu, unsigned *out) { return gpu_uint(gpu, "pcie.generation", out); }
Return nvmlDeviceGetCurrPcieLinkWidth(Gpu *gpu, unsigned *out) { return gpu_uint(gpu, "pcie.width", out); }

Return nvmlDeviceGetNvLinkErrorCounter(Gpu *gpu, unsigned link, unsigned counter, unsigned long long *out) {
    char field[32];
    snprintf(field, sizeof field, "link.%u.errors.%u", link, counter);
    return gpu_number(gpu, field, out);
}

Return nvmlDeviceGetNvLinkState(Gpu *gpu, unsigned link, unsigned *active) {
    char field[32], remote[64];
    snprintf(field, sizeof field, "link.%u", link);
    if (link >= 18) return INVALID_ARGUMENT;
    Return code = gpu_text(gpu, field, remote, sizeof remote);
    *active = code == SUCCESS;
    return code == NOT_SUPPORTED ? SUCCESS : code;
}

Return nvmlDeviceGetNvLinkRemotePciInfo_v2(Gpu *gpu, unsigned link, Pci *out) {
    char field[32];
    snprintf(field, sizeof field, "link.%u", link);
    return pci(gpu, field, out);
}

/* A reading of a pair of GPUs: the lower index comes first in its key. */
static Return pair(Gpu *a, Gpu *b, const char *field, unsigned *out) {
    unsigned long long value;
    char key[128];
    int low = a->index < b->index ? a->index : b->index;
    snprintf(key, sizeof key, "pair.%d.%d.%s", low, a->index + b->index - low, field);
    Return code = number(key, &value);
    if (code == SUCCESS) *out = (unsigned)value;
    return code;
}

Return nvmlDeviceGetTopologyCommonAncestor(Gpu *a, Gpu *b, unsigned *level) { return pair(a, b, "ancestor", level); }

Return nvmlDeviceGetP2PStatus(Gpu *a, Gpu *b, unsigned what, unsigned *status) {
    return what == 2 ? pair(a, b, "nvlink", status) : INVALID_ARGUMENT;
}

Return nvmlDeviceGetSupportedEventTypes(Gpu *gpu, unsigned long long *types) {
    return gpu_number(gpu, "events", types);
}

Return nvmlEventSetCreate(EventSet **set) {
    *set = calloc(1, sizeof **set);
    return SUCCESS;
}

Return nvmlEventSetFree(EventSet *set) {
    free(set);
    return SUCCESS;
}

Return nvmlDeviceRegisterEvents(Gpu *gpu, unsigned long long types, EventSet *set) {
    set->gpu = gpu;
    return types == 8 ? SUCCESS : NOT_SUPPORTED;
}

typedef struct {
    Gpu *gpu;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} Event;

/* Delivers `gpu.N.xid=CODE` once for each value that it takes; `CODE#2` is the same error once more. */
Return nvmlEventSetWait_v2(EventSet *set, Event *event, unsigned timeout_ms) {
    char xid[64];
    (void)timeout_ms;
    if (!set->gpu) return TIMEOUT;
    Return code = gpu_text(set->gpu, "xid", xid, sizeof xid);
    if (code == NOT_SUPPORTED) return TIMEOUT;
    if (code != SUCCESS) return code;
    if (strcmp(xid, set->gpu->last_xid) == 0) return TIMEOUT;
    strcpy(set->gpu->last_xid, xid);
    event->gpu = set->gpu;
    event->type = 8;
    event->data = strtoull(xid, NULL, 10);
    event->gpu_instance = event->compute_instance = 0xffffffff;
    return SUCCESS;
}
