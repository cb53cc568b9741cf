/* The cells of libevent. They only drive it; all timing is done by the caller. */

#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/thread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct event_base *new_base(int flags)
{
    struct event_config *config = event_config_new();
    event_config_set_flag(config, flags);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    if (!base)
        abort();
    return base;
}

static struct timeval from_us(uint64_t us)
{
    return (struct timeval){ .tv_sec = us / 1000000, .tv_usec = us % 1000000 };
}

void libevent_use_allocator(void *(*malloc_)(size_t), void *(*realloc_)(void *, size_t), void *(*calloc_)(size_t, size_t),
                            void (*free_)(void *))
{
    (void)calloc_;
    event_set_mem_functions(malloc_, realloc_, free_);
}

void libevent_create(void)
{
    struct event_base *base = event_base_new();
    event_base_loop(base, EVLOOP_NONBLOCK);
    event_base_free(base);
}

/* Wake: an event that another thread makes active. */

struct wake {
    struct event_base *base;
    struct event *event;
    int (*woken)(void *);
    void *argument;
};

static void on_wake(evutil_socket_t fd, short what, void *argument)
{
    struct wake *wake = argument;
    if (wake->woken(wake->argument))
        event_base_loopbreak(wake->base);
}

void *libevent_wake_new(int (*woken)(void *), void *argument)
{
    struct wake *wake = malloc(sizeof *wake);
    evthread_use_pthreads();
    *wake = (struct wake){ .base = event_base_new(), .woken = woken, .argument = argument };
    wake->event = event_new(wake->base, -1, EV_PERSIST, on_wake, wake);
    return wake;
}

void libevent_wake_ring(void *wake)
{
    event_active(((struct wake *)wake)->event, EV_READ, 0);
}

void libevent_wake_run(void *wake)
{
    event_base_loop(((struct wake *)wake)->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

/* Timers. */

static void nothing(evutil_socket_t fd, short what, void *argument) {}

void *libevent_timers_new(const uint64_t *us, int alive)
{
    struct event_base *base = event_base_new();
    for (int i = 0; i < alive; i++) {
        struct timeval after = from_us(us[i]);
        evtimer_add(evtimer_new(base, nothing, NULL), &after);
    }
    return base;
}

void libevent_timers_churn(void *base, const uint64_t *us, int count)
{
    for (int i = 0; i < count; i++) {
        struct event event;
        struct timeval after = from_us(us[i]);
        evtimer_assign(&event, base, nothing, NULL);
        evtimer_add(&event, &after);
        evtimer_del(&event);
    }
    event_base_loop(base, EVLOOP_NONBLOCK);
}

void libevent_timers_fire(const uint64_t *us, int count)
{
    struct event_base *base = event_base_new();
    struct event *events = calloc(count, sizeof *events);
    for (int i = 0; i < count; i++) {
        struct timeval after = from_us(us[i]);
        evtimer_assign(&events[i], base, nothing, NULL);
        evtimer_add(&events[i], &after);
    }
    event_base_dispatch(base);
    event_base_free(base);
    free(events);
}

struct sleeps {
    struct event event;
    struct event_base *base;
};

void *libevent_sleeps_new(void)
{
    struct sleeps *sleeps = malloc(sizeof *sleeps);
    sleeps->base = new_base(EVENT_BASE_FLAG_PRECISE_TIMER);
    evtimer_assign(&sleeps->event, sleeps->base, nothing, NULL);
    return sleeps;
}

void libevent_sleeps_sleep(void *sleeps_, uint64_t us)
{
    struct sleeps *sleeps = sleeps_;
    struct timeval after = from_us(us);
    evtimer_add(&sleeps->event, &after);
    event_base_dispatch(sleeps->base);
}

/* The ring: reads a token from pair i, writes it to pair i + 1. */

struct ring;

struct link {
    struct event event;
    struct ring *ring;
    int next;
};

struct ring {
    struct event_base *base;
    int buffer;
    int again;
    long hops;
    long tokens;
    struct link links[];
};

/* Tokens have hopped: how many of them go on. At the end of a run, none does. */
static long hop(struct ring *ring, long arrived)
{
    ring->hops -= arrived;
    long stay = ring->tokens > ring->hops ? ring->tokens - ring->hops : 0;
    ring->tokens -= stay;
    return arrived - stay;
}

static void on_token(evutil_socket_t fd, short what, void *argument)
{
    struct link *link = argument;
    char token[64];
    ssize_t n = read(fd, token, link->ring->buffer);
    if (n <= 0)
        abort();
    n = hop(link->ring, n);
    if (n > 0 && write(link->next, token, n) != n)
        abort();
    if (link->ring->again)
        event_add(&link->event, NULL);
    if (link->ring->hops == 0)
        event_base_loopbreak(link->ring->base);
}

void *libevent_ring_new(const int *ends, int pairs, int buffer, int again)
{
    struct ring *ring = malloc(sizeof *ring + pairs * sizeof *ring->links);
    ring->base = event_base_new();
    ring->buffer = buffer;
    ring->again = again;
    for (int i = 0; i < pairs; i++) {
        struct link *link = &ring->links[i];
        link->ring = ring;
        link->next = ends[2 * ((i + 1) % pairs) + 1];
        event_assign(&link->event, ring->base, ends[2 * i], EV_READ | (again ? 0 : EV_PERSIST), on_token, link);
        event_add(&link->event, NULL);
    }
    return ring;
}

void libevent_ring_run(void *ring_, long hops, long tokens)
{
    struct ring *ring = ring_;
    ring->hops = hops;
    ring->tokens = tokens;
    event_base_dispatch(ring->base);
}

/* Echo. */

struct connection {
    struct event event;
    char buffer[1024];
};

static void on_request(evutil_socket_t fd, short what, void *argument)
{
    struct connection *connection = argument;
    ssize_t n = read(fd, connection->buffer, sizeof connection->buffer);
    if (n <= 0) {
        event_del(&connection->event);
        close(fd);
        free(connection);
    } else if (write(fd, connection->buffer, n) != n) {
        abort();
    }
}

static void on_connection(evutil_socket_t listener, short what, void *base)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct connection *connection = malloc(sizeof *connection);
    event_assign(&connection->event, base, fd, EV_READ | EV_PERSIST, on_request, connection);
    event_add(&connection->event, NULL);
}

void libevent_echo(int listener)
{
    struct event_base *base = event_base_new();
    event_add(event_new(base, listener, EV_READ | EV_PERSIST, on_connection, base), NULL);
    event_base_dispatch(base);
}

/* Ends: a loop with timers, which another thread breaks; then everything is freed. */

struct ends {
    struct event_base *base;
    struct event *events;
};

void *libevent_ends_new(const uint64_t *us, int alive)
{
    struct ends *ends = malloc(sizeof *ends);
    evthread_use_pthreads();
    *ends = (struct ends){ .base = event_base_new(), .events = calloc(alive, sizeof *ends->events) };
    for (int i = 0; i < alive; i++) {
        struct timeval after = from_us(us[i]);
        evtimer_assign(&ends->events[i], ends->base, nothing, NULL);
        evtimer_add(&ends->events[i], &after);
    }
    return ends;
}

void libevent_ends_run(void *ends)
{
    event_base_loop(((struct ends *)ends)->base, EVLOOP_NO_EXIT_ON_EMPTY);
}

void libevent_ends_stop(void *ends)
{
    event_base_loopbreak(((struct ends *)ends)->base);
}

void libevent_ends_free(void *ends_)
{
    struct ends *ends = ends_;
    event_base_free(ends->base);
    free(ends->events);
    free(ends);
}
