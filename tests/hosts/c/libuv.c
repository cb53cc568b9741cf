/* libuv as a host: a loop that polls one descriptor; and as a guest: a loop that somebody else drives. */

#include <stdint.h>
#include <stdlib.h>
#include <uv.h>

static void must(int result)
{
    if (result < 0)
        abort();
}

/* ---- As a host ---- */

struct host {
    uv_loop_t loop;
    uv_poll_t poll;
    uv_timer_t end;
    /* Returns whether it was the last turn. */
    int (*turn)(void *);
    void *argument;
};

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct host *host = poll->data;
    must(status);
    if ((events & UV_READABLE) && host->turn(host->argument))
        uv_stop(poll->loop);
}

static void on_end(uv_timer_t *end)
{
    uv_stop(end->loop);
}

/* Serves a descriptor until `turn` says that it was the last one, or the time is over. */
void libuv_serve(int fd, uint64_t milliseconds, int (*turn)(void *), void *argument)
{
    struct host host = { .turn = turn, .argument = argument };
    must(uv_loop_init(&host.loop));
    must(uv_poll_init(&host.loop, &host.poll, fd));
    must(uv_timer_init(&host.loop, &host.end));
    host.poll.data = &host;
    must(uv_poll_start(&host.poll, UV_READABLE, on_readable));
    must(uv_timer_start(&host.end, on_end, milliseconds, 0));
    uv_run(&host.loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&host.poll, NULL);
    uv_close((uv_handle_t *)&host.end, NULL);
    uv_run(&host.loop, UV_RUN_DEFAULT);
    must(uv_loop_close(&host.loop));
}

/* ---- As a guest ---- */

struct guest {
    uv_loop_t loop;
    uv_timer_t timer;
    uv_pipe_t pipe;
    /* What the callbacks tell. */
    int fired;
    size_t received;
    int ended;
};

struct guest *libuv_guest_new(void)
{
    struct guest *guest = calloc(1, sizeof *guest);
    if (!guest)
        abort();
    must(uv_loop_init(&guest->loop));
    must(uv_timer_init(&guest->loop, &guest->timer));
    must(uv_pipe_init(&guest->loop, &guest->pipe, 0));
    guest->timer.data = guest->pipe.data = guest;
    return guest;
}

void libuv_guest_free(struct guest *guest)
{
    uv_close((uv_handle_t *)&guest->timer, NULL);
    uv_close((uv_handle_t *)&guest->pipe, NULL);
    uv_run(&guest->loop, UV_RUN_DEFAULT);
    must(uv_loop_close(&guest->loop));
    free(guest);
}

int libuv_guest_fd(const struct guest *guest)
{
    return uv_backend_fd(&guest->loop);
}

/* In milliseconds; -1: without end. */
int libuv_guest_timeout(struct guest *guest)
{
    /* The timeout of a loop that has nothing to wait for is 0: it would end at once. */
    if (!uv_loop_alive(&guest->loop))
        return -1;
    uv_update_time(&guest->loop);
    return uv_backend_timeout(&guest->loop);
}

void libuv_guest_run(struct guest *guest)
{
    uv_run(&guest->loop, UV_RUN_NOWAIT);
}

static void on_timer(uv_timer_t *timer)
{
    ((struct guest *)timer->data)->fired++;
}

void libuv_guest_start_timer(struct guest *guest, uint64_t milliseconds)
{
    uv_update_time(&guest->loop);
    must(uv_timer_start(&guest->timer, on_timer, milliseconds, 0));
}

int libuv_guest_fired(const struct guest *guest)
{
    return guest->fired;
}

static void on_allocate(uv_handle_t *pipe, size_t wanted, uv_buf_t *buffer)
{
    static char bytes[4096];
    (void)pipe;
    (void)wanted;
    *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void on_read(uv_stream_t *pipe, ssize_t count, const uv_buf_t *buffer)
{
    struct guest *guest = pipe->data;
    (void)buffer;
    if (count >= 0)
        guest->received += (size_t)count;
    else
        guest->ended = 1;
}

/* Reads from a descriptor, which is the guest's from here on. */
void libuv_guest_read(struct guest *guest, int fd)
{
    must(uv_pipe_open(&guest->pipe, fd));
    must(uv_read_start((uv_stream_t *)&guest->pipe, on_allocate, on_read));
}

size_t libuv_guest_received(const struct guest *guest)
{
    return guest->received;
}

int libuv_guest_ended(const struct guest *guest)
{
    return guest->ended;
}
