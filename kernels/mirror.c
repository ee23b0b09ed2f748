#include "kernels/mirror.h"

#include "kernels/memory.h"

status mirror_create(mirror *out, device *device, void *buffer, size_t bytes, const char *what) {
    *out = (mirror){.device = device, .buffer = buffer, .host = buffer, .bytes = bytes};
    if (device_shares_memory(device))
        return STATUS_OK;
    const status result = memory_allocate(&out->host, bytes, what);
    if (result != STATUS_OK)
        *out = (mirror){0};
    else
        out->pinned = device_pin(device, out->host, bytes);
    return result;
}

void mirror_release(mirror *m) {
    if (m->pinned)
        device_unpin(m->device, m->host);
    if (m->host != m->buffer)
        memory_free(m->host);
    *m = (mirror){0};
}

status mirror_fetch(mirror *m) {
    return m->host == m->buffer ? STATUS_OK : device_download(m->device, m->host, m->buffer, m->bytes);
}

status mirror_store(mirror *m) {
    if (m->host == m->buffer)
        return STATUS_OK;
    TRY(device_upload(m->device, m->buffer, m->host, m->bytes));
    return m->pinned ? device_finish(m->device) : STATUS_OK;
}
