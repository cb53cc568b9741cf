/* The cells of libuv. They only drive it; all timing is done by the caller. */

#include <stdint.h>
#include <stdlib.h>
#include <uv.h>

static void must(int result)
{
    if (result < 0)
        abort();
}

static uv_loop_t *new_loop(void)
{
    uv_loop_t *loop = malloc(sizeof *loop);
    must(uv_loop_init(loop));
    return loop;
}

/* Handles belong to libuv's user, who allocates them here where memory is counted. */
static void *(*allocate)(size_t) = malloc;

void libuv_use_allocator(void *(*malloc_)(size_t), void *(*realloc_)(void *, size_t), void *(*calloc_)(size_t, size_t),
                         void (*free_)(void *))
{
    allocate = malloc_;
    must(uv_replace_allocator(malloc_, realloc_, calloc_, free_));
}

void libuv_create(void)
{
    uv_loop_t loop;
    must(uv_loop_init(&loop));
    uv_run(&loop, UV_RUN_NOWAIT);
    must(uv_loop_close(&loop));
}

/* Wake: uv_async_send, its one function for other threads. */

struct wake {
    uv_loop_t *loop;
    uv_async_t async;
    int (*woken)(void *);
    void *argument;
};

static void on_wake(uv_async_t *async)
{
    struct wake *wake = async->data;
    if (wake->woken(wake->argument))
        uv_stop(wake->loop);
}

void *libuv_wake_new(int (*woken)(void *), void *argument)
{
    struct wake *wake = malloc(sizeof *wake);
    *wake = (struct wake){ .loop = new_loop(), .woken = woken, .argument = argument };
    must(uv_async_init(wake->loop, &wake->async, on_wake));
    wake->async.data = wake;
    return wake;
}

void libuv_wake_ring(void *wake)
{
    must(uv_async_send(&((struct wake *)wake)->async));
}

void libuv_wake_run(void *wake)
{
    uv_run(((struct wake *)wake)->loop, UV_RUN_DEFAULT);
}

/* Timers, which count in milliseconds here. */

static void nothing(uv_timer_t *timer) {}

void *libuv_timers_new(const uint64_t *us, int alive)
{
    uv_loop_t *loop = new_loop();
    for (int i = 0; i < alive; i++) {
        uv_timer_t *timer = allocate(sizeof *timer);
        must(uv_timer_init(loop, timer));
        must(uv_timer_start(timer, nothing, us[i] / 1000, 0));
    }
    return loop;
}

void libuv_timers_churn(void *loop, const uint64_t *us, int count)
{
    uv_timer_t timer;
    must(uv_timer_init(loop, &timer));
    for (int i = 0; i < count; i++) {
        /* The loop's own time is that of its last turn. */
        uv_update_time(loop);
        must(uv_timer_start(&timer, nothing, us[i] / 1000, 0));
        must(uv_timer_stop(&timer));
    }
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
}

void libuv_timers_fire(const uint64_t *us, int count)
{
    uv_loop_t *loop = new_loop();
    uv_timer_t *timers = calloc(count, sizeof *timers);
    for (int i = 0; i < count; i++) {
        must(uv_timer_init(loop, &timers[i]));
        must(uv_timer_start(&timers[i], nothing, us[i] / 1000, 0));
    }
    uv_run(loop, UV_RUN_DEFAULT);
    free(timers);
}

struct sleeps {
    uv_loop_t *loop;
    uv_timer_t timer;
};

void *libuv_sleeps_new(void)
{
    struct sleeps *sleeps = malloc(sizeof *sleeps);
    sleeps->loop = new_loop();
    must(uv_timer_init(sleeps->loop, &sleeps->timer));
    return sleeps;
}

void libuv_sleeps_sleep(void *sleeps_, uint64_t us)
{
    struct sleeps *sleeps = sleeps_;
    uv_update_time(sleeps->loop);
    must(uv_timer_start(&sleeps->timer, nothing, (us + 999) / 1000, 0));
    uv_run(sleeps->loop, UV_RUN_DEFAULT);
}

/* The ring: reads a token from pair i, writes it to pair i + 1. */

struct ring;

struct link {
    uv_pipe_t from;
    uv_pipe_t to;
    struct ring *ring;
    char token[64];
};

struct ring {
    uv_loop_t *loop;
    int buffer;
    long hops;
    long tokens;
    struct link links[];
};

static void token_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    struct link *link = handle->data;
    *buffer = uv_buf_init(link->token, link->ring->buffer);
}

/* Tokens have hopped: how many of them go on. At the end of a run, none does. */
static long hop(struct ring *ring, long arrived)
{
    ring->hops -= arrived;
    long stay = ring->tokens > ring->hops ? ring->tokens - ring->hops : 0;
    ring->tokens -= stay;
    return arrived - stay;
}

static void on_token(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct link *link = stream->data;
    if (n == 0)
        return;
    must(n);
    n = hop(link->ring, n);
    uv_buf_t token = uv_buf_init(link->token, n);
    if (n > 0 && uv_try_write((uv_stream_t *)&link->to, &token, 1) != n)
        abort();
    if (link->ring->hops == 0)
        uv_stop(link->ring->loop);
}

/* It has no `again`: a stop and a start cancel each other out before the kernel hears of them. */
void *libuv_ring_new(const int *ends, int pairs, int buffer, int again)
{
    if (again)
        abort();
    struct ring *ring = malloc(sizeof *ring + pairs * sizeof *ring->links);
    ring->loop = new_loop();
    ring->buffer = buffer;
    for (int i = 0; i < pairs; i++) {
        struct link *link = &ring->links[i];
        link->ring = ring;
        link->from.data = link;
        must(uv_pipe_init(ring->loop, &link->from, 0));
        must(uv_pipe_init(ring->loop, &link->to, 0));
        must(uv_pipe_open(&link->from, ends[2 * i]));
        must(uv_pipe_open(&link->to, ends[2 * ((i + 1) % pairs) + 1]));
        must(uv_read_start((uv_stream_t *)&link->from, token_buffer, on_token));
    }
    return ring;
}

void libuv_ring_run(void *ring_, long hops, long tokens)
{
    struct ring *ring = ring_;
    ring->hops = hops;
    ring->tokens = tokens;
    uv_run(ring->loop, UV_RUN_DEFAULT);
}

/* Echo. */

struct connection {
    uv_tcp_t tcp;
    char buffer[1024];
};

static void request_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    struct connection *connection = handle->data;
    *buffer = uv_buf_init(connection->buffer, sizeof connection->buffer);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_request(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct connection *connection = stream->data;
    if (n < 0)
        return uv_close((uv_handle_t *)stream, on_closed);
    if (n == 0)
        return;
    uv_buf_t answer = uv_buf_init(connection->buffer, n);
    if (uv_try_write(stream, &answer, 1) != n)
        abort();
}

static void on_connection(uv_stream_t *listener, int status)
{
    must(status);
    struct connection *connection = malloc(sizeof *connection);
    must(uv_tcp_init(listener->loop, &connection->tcp));
    connection->tcp.data = connection;
    must(uv_accept(listener, (uv_stream_t *)&connection->tcp));
    must(uv_read_start((uv_stream_t *)&connection->tcp, request_buffer, on_request));
}

void libuv_echo(int listener)
{
    uv_loop_t *loop = new_loop();
    uv_tcp_t tcp;
    must(uv_tcp_init(loop, &tcp));
    must(uv_tcp_open(&tcp, listener));
    must(uv_listen((uv_stream_t *)&tcp, 4096, on_connection));
    uv_run(loop, UV_RUN_DEFAULT);
}

/* Ends: a loop with timers, which another thread stops; then everything is closed. */

struct ends {
    uv_loop_t loop;
    uv_async_t async;
    int alive;
    uv_timer_t *timers;
};

static void on_end(uv_async_t *async)
{
    uv_stop(async->loop);
}

void *libuv_ends_new(const uint64_t *us, int alive)
{
    struct ends *ends = malloc(sizeof *ends);
    ends->alive = alive;
    ends->timers = calloc(alive, sizeof *ends->timers);
    must(uv_loop_init(&ends->loop));
    must(uv_async_init(&ends->loop, &ends->async, on_end));
    for (int i = 0; i < alive; i++) {
        must(uv_timer_init(&ends->loop, &ends->timers[i]));
        must(uv_timer_start(&ends->timers[i], nothing, us[i] / 1000, 0));
    }
    return ends;
}

void libuv_ends_run(void *ends)
{
    uv_run(&((struct ends *)ends)->loop, UV_RUN_DEFAULT);
}

void libuv_ends_stop(void *ends)
{
    must(uv_async_send(&((struct ends *)ends)->async));
}

void libuv_ends_free(void *ends_)
{
    struct ends *ends = ends_;
    uv_close((uv_handle_t *)&ends->async, NULL);
    for (int i = 0; i < ends->alive; i++)
        uv_close((uv_handle_t *)&ends->timers[i], NULL);
    /* The loop finishes the closes. */
    uv_run(&ends->loop, UV_RUN_DEFAULT);
    must(uv_loop_close(&ends->loop));
    free(ends->timers);
    free(ends);
}
