/* An open-loop load generator: requests leave at a constant rate, whatever the answers do.
 *
 *     openloop PORT CONNECTIONS RATE WARM_SECONDS SECONDS REQUEST_FILE
 *
 * Request k is due at start + k / RATE, on connection k modulo CONNECTIONS. Its latency counts
 * from when it was due, not from when it was sent: a request that has to wait because the
 * answer before it on its connection is late waits on the server's account. So a stall of the
 * server shows in every request that was due within it, as it would to independent clients (no
 * coordinated omission).
 *
 * What is the generator's own fault is measured apart: `late` is how long after its due time a
 * request was sent although its connection was free. It spins instead of sleeping when the next
 * request is due soon, so it wants a core of its own; `core_share` says how much of one it had
 * while it did not sleep: below 1, something else ran there.
 *
 * `accepted` are the latencies of answers with a 2xx alone; `without_retry_after` counts the other
 * answers that do not say when to come again.
 *
 * One line of JSON on stdout, times in microseconds. Exit code 2 with a line on stderr for what
 * makes a measurement impossible.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define DRAIN (5 * SECOND)     /* how long after the last due time answers are awaited */
#define SPIN (300 * 1000LL)    /* sleep only when the next request is due later than this */
#define HEAD_MAX 8192
#define EVENTS 64

typedef struct {
    int fd;
    int busy;          /* a request is sent, or being sent, and has no answer yet */
    int waits;         /* for room to send the rest of its request */
    int64_t next;      /* number of the request under way, or else of the next one */
    size_t sent;
    size_t got;        /* bytes of a head that is not whole */
    int64_t body_left; /* -1: within the head */
    int status;
    char head[HEAD_MAX];
} connection;

static connection *connections;
static int64_t count;
static double rate;
static int64_t start, first_counted, total;
static char *request;
static size_t request_size;
static struct sockaddr_in server;
static int epoll_fd;

static int64_t *latency, *late, *accepted;
static int64_t latencies, lates, accepteds, without_retry_after, answered, non_2xx, broken, unanswered, outstanding;
static int64_t released; /* all requests before this number were due already */
static int64_t last_answer, slept;

static void die(const char *what) {
    fprintf(stderr, "openloop: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void refuse(const char *what) {
    fprintf(stderr, "openloop: %s\n", what);
    exit(2);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static int64_t due(int64_t number) { return start + (int64_t)((double)number / rate * 1e9); }

static void watch(connection *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event) < 0) die("epoll_ctl");
}

/* Blocking: before the start, or after a failure, when the figures are spoilt anyway. */
static int open_connection(connection *c) {
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0) {
        close(c->fd);
        c->fd = -1;
        return 0;
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0) die("fcntl");
    c->busy = c->waits = 0;
    c->got = 0;
    c->body_left = -1;
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    return 1;
}

/* The request under way is over, one way or another. */
static void finish(connection *c, int64_t when) {
    if (c->next >= first_counted) latency[latencies++] = when - due(c->next);
    c->next += count;
    c->busy = 0;
    outstanding--;
}

static void send_rest(connection *c);

static void begin(connection *c) {
    c->busy = 1;
    c->sent = 0;
    outstanding++;
    send_rest(c);
}

static void fail(connection *c) {
    broken++;
    if (c->fd >= 0) close(c->fd);
    if (c->busy) finish(c, now());
    /* What is due on it meanwhile fails as well when nobody listens any more. */
    while (!open_connection(c)) {
        if (c->next >= released) return;
        broken++;
        outstanding++;
        finish(c, now());
    }
    if (c->next < released) begin(c);
}

static void send_rest(connection *c) {
    ssize_t sent = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN) {
            fail(c);
            return;
        }
        sent = 0;
    }
    c->sent += (size_t)sent;
    int waits = c->sent < request_size;
    if (waits != c->waits) watch(c, EPOLL_CTL_MOD, waits ? EPOLLIN | EPOLLOUT : EPOLLIN);
    c->waits = waits;
}

/* Status and length out of a whole head; an answer without a length cannot be measured. */
static void read_head(connection *c, size_t size) {
    c->head[size] = 0;
    if (size < 12 || memcmp(c->head, "HTTP/1.", 7)) refuse("that is no HTTP/1 answer");
    c->status = atoi(c->head + 9);
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (!length) refuse("an answer without Content-Length");
    if (c->status > 299 && !strcasestr(c->head, "\r\nretry-after:")) without_retry_after++;
    c->body_left = atoll(length + 17);
}

/* Takes what has arrived; returns whether that ended an answer. */
static int take(connection *c, const char *data, size_t size) {
    if (c->body_left < 0) {
        size_t before = c->got;
        if (before + size >= HEAD_MAX) refuse("an answer's head, or a short answer, is too long");
        memcpy(c->head + before, data, size);
        c->got += size;
        char *end = memmem(c->head, c->got, "\r\n\r\n", 4);
        if (!end) return 0;
        size_t head_size = (size_t)(end - c->head) + 4;
        size_t beyond = c->got - head_size;
        read_head(c, head_size - 2);
        c->got = 0;
        size = beyond;
    }
    c->body_left -= (int64_t)size;
    if (c->body_left < 0) refuse("more bytes than the answer's length");
    if (c->body_left) return 0;
    c->body_left = -1;
    return 1;
}

static void receive(connection *c) {
    char data[HEAD_MAX / 2];
    ssize_t size = recv(c->fd, data, sizeof data, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0 || !c->busy) {
        fail(c);
        return;
    }
    if (!take(c, data, (size_t)size)) return;
    int64_t when = now();
    if (c->next >= first_counted) {
        answered++;
        last_answer = when;
        if (c->status < 200 || c->status > 299)
            non_2xx++;
        else
            accepted[accepteds++] = when - due(c->next);
    }
    finish(c, when);
    if (c->next < released) begin(c);
}

/* Send, or leave to its busy connection, whatever is due by now. */
static int64_t release(void) {
    int64_t when = now();
    while (released < total && due(released) <= when) {
        connection *c = &connections[released % count];
        released++;
        if (c->fd < 0) {
            fail(c);
        } else if (!c->busy) {
            if (c->next >= first_counted) late[lates++] = now() - due(c->next);
            begin(c);
        }
    }
    return when;
}

static void run(void) {
    struct epoll_event events[EVENTS];
    start = now() + SECOND / 100;
    for (;;) {
        int64_t when = release();
        if (released == total && (!outstanding || when > due(total) + DRAIN)) break;
        int64_t gap = (released < total ? due(released) : when + SECOND / 10) - when - SPIN;
        int milliseconds = gap > 0 ? (int)(gap / 1000000) : 0;
        int ready = epoll_wait(epoll_fd, events, EVENTS, milliseconds);
        if (milliseconds) slept += now() - when;
        for (int i = 0; i < ready; i++) {
            connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_rest(c);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(c);
            release();
        }
    }
    int64_t when = now();
    for (int64_t i = 0; i < count; i++)
        for (connection *c = &connections[i]; c->next < total; c->next += count) {
            if (c->next < first_counted) continue;
            unanswered++;
            latency[latencies++] = when - due(c->next);
        }
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The smallest value that `share` of all values do not exceed. */
static double quantile(const int64_t *sorted, int64_t size, double share) {
    if (!size) return 0;
    int64_t index = (int64_t)(share * (double)size + 0.999999999) - 1;
    if (index < 0) index = 0;
    return (double)sorted[index < size ? index : size - 1] / 1e3;
}

static void print_quantiles(const char *name, int64_t *values, int64_t size) {
    static const struct { const char *name; double share; } wanted[] = {
        {"p50", .5}, {"p90", .9}, {"p99", .99}, {"p99.9", .999}, {"p99.99", .9999}, {"max", 1}};
    qsort(values, (size_t)size, sizeof *values, ascending);
    printf("\"%s\":{", name);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        printf("%s\"%s\":%.1f", i ? "," : "", wanted[i].name,
               quantile(values, size, wanted[i].share));
    printf("}");
}

static void load_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die(path);
    fseek(file, 0, SEEK_END);
    request_size = (size_t)ftell(file);
    rewind(file);
    request = malloc(request_size + 1);
    if (!request || fread(request, 1, request_size, file) != request_size) die(path);
    fclose(file);
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv) {
    if (argc != 7)
        refuse("usage: openloop PORT CONNECTIONS RATE WARM_SECONDS SECONDS REQUEST_FILE");
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    count = atoll(argv[2]);
    rate = atof(argv[3]);
    double warm_seconds = atof(argv[4]), seconds = atof(argv[5]);
    if (count < 1 || rate <= 0 || seconds <= 0) refuse("numbers must be positive");
    load_request(argv[6]);
    first_counted = (int64_t)(warm_seconds * rate);
    total = first_counted + (int64_t)(seconds * rate);
    size_t space = (size_t)(total - first_counted + 1) * sizeof *latency;
    connections = calloc((size_t)count, sizeof *connections);
    latency = malloc(space);
    late = malloc(space);
    accepted = malloc(space);
    if (!connections || !latency || !late || !accepted) die("memory");
    memset(latency, 0, space); /* no page faults later */
    memset(late, 0, space);
    memset(accepted, 0, space);
    if ((epoll_fd = epoll_create1(0)) < 0) die("epoll");
    for (int64_t i = 0; i < count; i++) {
        connections[i].next = i;
        if (!open_connection(&connections[i])) die("connect");
    }
    double cpu_before = cpu_seconds();
    int64_t began = now();
    run();
    double awake = (double)(now() - began - slept) / 1e9;
    int64_t span = last_answer - due(first_counted);
    int64_t planned = due(total) - due(first_counted);
    if (span < planned) span = planned;
    printf("{\"rate\":%.1f,\"achieved\":%.1f,\"requests\":%lld,\"answered\":%lld,"
           "\"non_2xx\":%lld,\"broken\":%lld,\"unanswered\":%lld,\"core_share\":%.3f,",
           rate, (double)answered / ((double)span / 1e9), (long long)(total - first_counted),
           (long long)answered, (long long)non_2xx, (long long)broken, (long long)unanswered,
           (cpu_seconds() - cpu_before) / awake);
    print_quantiles("latency", latency, latencies);
    printf(",\"without_retry_after\":%lld,", (long long)without_retry_after);
    print_quantiles("accepted", accepted, accepteds);
    printf(",");
    print_quantiles("late", late, lates);
    printf("}\n");
    return 0;
}
