#include "launch/doctor.h"

#include "comm/nccl.h"
#include "data/render.h"
#include "kernels/cuda/device_query.h"
#include "kernels/device.h"
#include "kernels/library_version.h"

#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <yaml.h>

static const double gibibyte = 1024.0 * 1024.0 * 1024.0;

// Adds a line and returns it, for its advice to be filled in.
static doctor_line *add_line(doctor_report *report, doctor_level level, const char *topic, const char *format,
                             ...) __attribute__((format(printf, 4, 5)));
static doctor_line *add_line(doctor_report *report, doctor_level level, const char *topic, const char *format,
                             ...) {
    // A report that is full keeps overwriting its last line; DOCTOR_LINES leaves room to spare.
    doctor_line *line = &report->lines[report->count < DOCTOR_LINES ? report->count++ : DOCTOR_LINES - 1];
    line->level = level;
    line->advice[0] = '\0';
    snprintf(line->topic, sizeof line->topic, "%s", topic);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line->text, sizeof line->text, format, arguments);
    va_end(arguments);
    if (level == DOCTOR_MISSING)
        report->missing++;
    return line;
}

static void advise(doctor_line *line, const char *advice) {
    snprintf(line->advice, sizeof line->advice, "%s", advice);
}

// Copies what follows "NAME" and ':' or blanks on the first line of `path` that starts with NAME; 0 if none.
static int read_field(const char *path, const char *name, char *value, size_t bytes) {
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    char line[1024];
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, name, strlen(name)) == 0) {
            const char *start = line + strlen(name);
            start += strspn(start, " \t:");
            snprintf(value, bytes, "%.*s", (int)strcspn(start, "\n"), start);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static void examine_build(doctor_report *report) {
    struct utsname system;
    char distribution[128] = "";
    add_line(report, DOCTOR_OK, "musicrl", "%s, built with %s%s", MUSICRL_VERSION, BUILD_DESCRIPTION,
             device_query_has_kernels() ? ", CUDA" : "");
    if (uname(&system) == 0) {
        read_field("/etc/os-release", "PRETTY_NAME=\"", distribution, sizeof distribution);
        distribution[strcspn(distribution, "\"")] = '\0';
        add_line(report, DOCTOR_OK, "system", "%s %s%s%s", system.sysname, system.release,
                 distribution[0] ? ", " : "", distribution);
    }
}

static void examine_processor(doctor_report *report) {
    char model[128] = "unknown model";
    read_field("/proc/cpuinfo", "model name", model, sizeof model);
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (!avx2) {
        advise(add_line(report, DOCTOR_MISSING, "processor", "%s, without AVX2 and FMA", model),
               "use a processor from 2015 or later; the program cannot run on this one");
        return;
    }
    add_line(report, DOCTOR_OK, "processor", "%s, %s; matrix products use %s", model,
             avx512 ? "AVX2 and AVX-512" : "AVX2 but no AVX-512", kernels_product_isa());
}

// The processors' time that the control group grants, in cores; 0 if there is no limit.
static double cgroup_cores(void) {
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!file)
        return 0;
    double quota = 0;
    double period = 0;
    int fields = fscanf(file, "%lf %lf", &quota, &period); // "max 100000" where there is no limit
    fclose(file);
    return fields == 2 && period > 0 ? quota / period : 0;
}

static void examine_cores(doctor_report *report) {
    cpu_set_t allowed;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int usable = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : (int)online;
    double quota = cgroup_cores();
    if (quota > 0 && quota < usable)
        advise(add_line(report, DOCTOR_NOTE, "cores",
                        "%d of %ld may be used, but the control group grants the time of %.1f", usable,
                        online, quota),
               "give threads and ranks no more than that, for example OMP_NUM_THREADS=N");
    else if (usable < online)
        advise(add_line(report, DOCTOR_NOTE, "cores", "%d of %ld may be used (processor affinity)", usable,
                        online),
               "under mpirun add --bind-to none; otherwise see taskset and your batch system");
    else
        add_line(report, DOCTOR_OK, "cores", "%d usable of %ld", usable, online);

    const char *threads = getenv("OMP_NUM_THREADS");
    const char *binding = getenv("OMP_PROC_BIND");
    if (threads)
        advise(add_line(report, DOCTOR_NOTE, "threads", "OMP_NUM_THREADS=%s is set", threads),
               "unset it to let each rank take its share of the cores");
    if (binding && strcmp(binding, "false") != 0)
        advise(add_line(report, DOCTOR_NOTE, "threads", "OMP_PROC_BIND=%s is set", binding),
               "unset it when several ranks share a machine: they may all bind to the same cores");
}

static void examine_memory(doctor_report *report) {
    char text[64] = "";
    double total = 0;
    double available = 0;
    if (read_field("/proc/meminfo", "MemTotal", text, sizeof text))
        total = strtod(text, NULL) * 1024.0;
    if (read_field("/proc/meminfo", "MemAvailable", text, sizeof text))
        available = strtod(text, NULL) * 1024.0;
    char limit_text[64] = "";
    double limit = 0;
    if (read_field("/sys/fs/cgroup/memory.max", "", limit_text, sizeof limit_text))
        limit = strtod(limit_text, NULL); // "max" reads as 0
    if (limit > 0 && limit < available) {
        available = limit;
        snprintf(text, sizeof text, " (limit of the control group)");
    } else {
        text[0] = '\0';
    }
    doctor_line *line =
        add_line(report, available < 2 * gibibyte ? DOCTOR_NOTE : DOCTOR_OK, "memory",
                 "%.1f GiB available of %.1f GiB%s", available / gibibyte, total / gibibyte, text);
    if (line->level == DOCTOR_NOTE)
        advise(line, "a run prints what it needs before it starts, and refuses if that does not fit");

    struct statvfs shared;
    if (statvfs("/dev/shm", &shared) == 0) {
        double free_bytes = (double)shared.f_bavail * (double)shared.f_frsize;
        if (free_bytes < gibibyte / 4)
            advise(add_line(report, DOCTOR_NOTE, "shared memory", "%.0f MiB free in /dev/shm",
                            free_bytes / (1024.0 * 1024.0)),
                   "several ranks on one machine want more; in a container: --shm-size=1g");
    }
}

static void examine_libraries(doctor_report *report) {
    library_version versions[32];
    int count = kernels_library_versions(versions, 32);
    count += data_library_versions(versions + count, 32 - count);
    count += comm_library_versions(versions + count, 32 - count);
    count = library_version_append(versions, count, 32, "libyaml", "%s", yaml_get_version_string());
    for (int i = 0; i < count; i++)
        add_line(report, DOCTOR_OK, "library", "%s %s", versions[i].name, versions[i].version);
}

static void examine_soundfont(doctor_report *report) {
#if MUSICRL_FLUIDSYNTH
    const char *path = NULL;
    if (renderer_find_soundfont(&path) == STATUS_OK)
        add_line(report, DOCTOR_OK, "soundfont", "%s", path);
    else
        advise(add_line(report, DOCTOR_MISSING, "soundfont",
                        "none in the usual places, such as /usr/share/sounds/sf2"),
               "sudo apt-get install timgm6mb-soundfont");
#else
    advise(add_line(report, DOCTOR_NOTE, "soundfont", "built without FluidSynth: no 'musicrl corpus make'"),
           "configure with -DMUSICRL_FLUIDSYNTH=ON, or import a corpus of your own");
#endif
}

// Finds an executable file `name` in PATH; 0 if there is none.
static int find_program(const char *name, char *path, size_t bytes) {
    const char *folders = getenv("PATH");
    while (folders && *folders) {
        int length = (int)strcspn(folders, ":");
        int written = snprintf(path, bytes, "%.*s/%s", length, folders, name);
        if (written > 0 && (size_t)written < bytes && access(path, X_OK) == 0)
            return 1;
        folders += length;
        folders += *folders == ':';
    }
    return 0;
}

static void examine_launchers(doctor_report *report) {
    char path[256];
    if (find_program("mpirun", path, sizeof path))
        add_line(report, DOCTOR_OK, "mpirun", "%s", path);
    else
        advise(add_line(report, DOCTOR_NOTE, "mpirun", "not in PATH; one rank works without it"),
               "for several ranks: sudo apt-get install openmpi-bin");
    if (find_program("srun", path, sizeof path))
        add_line(report, DOCTOR_OK, "Slurm", "%s", path);
    else
        add_line(report, DOCTOR_NOTE, "Slurm", "srun is not in PATH; only needed on a cluster that uses it");
}

static void examine_devices(doctor_report *report) {
    device_description devices[16];
    char reason[160] = "";
    int count = device_query(devices, 16, reason, sizeof reason);
    for (int i = 0; i < count && i < 16; i++)
        add_line(report, DOCTOR_OK, "GPU", "%d: %s, %.0f GiB, compute capability %d.%d", i, devices[i].name,
                 (double)devices[i].memory_bytes / gibibyte, devices[i].compute_major,
                 devices[i].compute_minor);
    if (count == 0)
        add_line(report, DOCTOR_NOTE, "GPU", "%s; not needed, everything runs on the processor", reason);
    else if (!device_query_has_kernels())
        advise(add_line(report, DOCTOR_NOTE, "CUDA", "this build has no CUDA"),
               "install the CUDA toolkit and build again");
    // What device=auto will do.
    device *gpu;
    if (device_create_gpu(&gpu, &(gpu_options){.threads = 1}) == STATUS_OK)
        add_line(report, DOCTOR_OK, "device", "auto is the GPU: %s (%s), %s", device_name(gpu),
                 device_instruction_set(gpu), device_library(gpu));
    else
        add_line(report, DOCTOR_NOTE, "device", "auto is the CPU: %s", status_message());
    device_destroy(gpu);

    nccl_library *nccl;
    if (nccl_library_open(&nccl, NULL) == STATUS_OK)
        add_line(report, DOCTOR_OK, "NCCL", "%s, %s", nccl_library_version_text(nccl),
                 nccl_library_path(nccl));
    else
        add_line(report, DOCTOR_NOTE, "NCCL", "only several GPUs use it; %s", status_message());
    nccl_library_close(nccl);
}

static void examine_disk(doctor_report *report) {
    struct statvfs disk;
    if (statvfs(".", &disk) != 0) {
        add_line(report, DOCTOR_NOTE, "disk", "the free space of the current folder cannot be told");
        return;
    }
    double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    doctor_line *line = add_line(report, free_bytes < 4 * gibibyte ? DOCTOR_NOTE : DOCTOR_OK, "disk",
                                 "%.1f GiB free in the current folder", free_bytes / gibibyte);
    if (line->level == DOCTOR_NOTE)
        advise(line,
               "a corpus, checkpoints and recorded rollouts want room: choose a folder on a larger disk");
}

void doctor_examine(doctor_report *report) {
    memset(report, 0, sizeof *report);
    examine_build(report);
    examine_processor(report);
    examine_cores(report);
    examine_memory(report);
    examine_disk(report);
    examine_libraries(report);
    examine_soundfont(report);
    examine_launchers(report);
    examine_devices(report);
}
