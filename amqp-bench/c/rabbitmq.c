/* The workloads on librabbitmq, with the protocol of `amqp-bench once`: the same arguments, and one line of
 * JSON with the same figures. It is used as its examples use it: one blocking connection, one call after
 * another, amqp_consume_message for deliveries. */

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#define FRAME_MAX 131072
#define CHANNEL 1
#define WINDOW 1000
#define PREFETCH 1000
#define PAUSE_EVERY 1000
#define CHANNELS_PER_CONNECTION 10
#define SMALL 16

enum task {
    PUBLISH,
    CONFIRMED,
    PUBLISH_AND_WAIT,
    CONSUME,
    CONSUME_AND_ACK,
    CONSUME_AND_PAUSE,
    ROUND_TRIP,
    CONNECT,
    IDLE,
};

/* As in workload.rs; the peer's totals tell a size that is not the same. */
static const struct workload {
    const char *name;
    enum task task;
    size_t size;
} WORKLOADS[] = {
    {"w1", PUBLISH, SMALL},
    {"w1-1k", PUBLISH, 1 << 10},
    {"w1-64k", PUBLISH, 64 << 10},
    {"w1-10m", PUBLISH, 10 << 20},
    {"w2", CONFIRMED, SMALL},
    {"w2r", CONFIRMED, SMALL},
    {"w2u", CONFIRMED, SMALL},
    {"w3", PUBLISH_AND_WAIT, SMALL},
    {"w3r", PUBLISH_AND_WAIT, SMALL},
    {"w4", CONSUME, SMALL},
    {"w4-1k", CONSUME, 1 << 10},
    {"w4-64k", CONSUME, 64 << 10},
    {"w5", CONSUME_AND_ACK, SMALL},
    {"w5r", CONSUME_AND_ACK, SMALL},
    {"w7", ROUND_TRIP, 0},
    {"w8", CONNECT, 0},
    {"w9", IDLE, 0},
    {"t11", CONSUME_AND_PAUSE, SMALL},
    {"t11-64k", CONSUME_AND_PAUSE, 64 << 10},
};

struct figures {
    double seconds, cpu_seconds;
    double *latencies;
    double connection_kib, channel_kib;
};

static const char *client_name = "rabbitmq-c", *workload_name = "";
static amqp_bytes_t queue, body;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s %s: ", client_name, workload_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static double seconds_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double wall(void) { return seconds_of(CLOCK_MONOTONIC); }

static uint64_t memory_kib(const char *field) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    uint64_t kib = 0;
    while (status && fgets(line, sizeof line, status)) {
        if (!strncmp(line, field, strlen(field))) {
            kib = strtoull(line + strlen(field), NULL, 10);
        }
    }
    if (status) fclose(status);
    return kib;
}

static void check_reply(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) return;
    if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
        fail("%s: %s", what, amqp_error_string2(reply.library_error));
    }
    fail("%s: refused by the peer", what);
}

static void check_status(int status, const char *what) {
    if (status != AMQP_STATUS_OK) fail("%s: %s", what, amqp_error_string2(status));
}

static amqp_connection_state_t connect_to(const char *uri) {
    struct amqp_connection_info info;
    char *copy = strdup(uri);
    amqp_default_connection_info(&info);
    check_status(amqp_parse_url(copy, &info), "the URI");
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (!socket) fail("no memory for a socket");
    check_status(amqp_socket_open(socket, info.host, info.port), "connect");
    check_reply(amqp_login(connection, info.vhost, 0, FRAME_MAX, 0, AMQP_SASL_METHOD_PLAIN, info.user,
                           info.password),
                "login");
    free(copy);
    return connection;
}

static void open_channel(amqp_connection_state_t connection, amqp_channel_t channel) {
    amqp_channel_open(connection, channel);
    check_reply(amqp_get_rpc_reply(connection), "channel.open");
}

static void disconnect(amqp_connection_state_t connection) {
    check_reply(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "connection.close");
    check_status(amqp_destroy_connection(connection), "destroy");
}

static void publish_one(amqp_connection_state_t connection) {
    check_status(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, queue, 0, 0, NULL, body), "publish");
}

/* A passive declare: the messages that the peer counted. */
static uint64_t counted(amqp_connection_state_t connection) {
    amqp_queue_declare_ok_t *ok =
        amqp_queue_declare(connection, CHANNEL, queue, 1, 0, 0, 0, amqp_empty_table);
    check_reply(amqp_get_rpc_reply(connection), "queue.declare");
    return ok->message_count;
}

static void publish(amqp_connection_state_t connection, uint64_t count) {
    for (uint64_t number = 0; number < count; number++) publish_one(connection);
    uint64_t arrived = counted(connection);
    if (arrived != count) fail("the peer counted %" PRIu64 " instead of %" PRIu64, arrived, count);
}

/* Confirms in whatever order; each tag counts once. */
struct confirms {
    uint64_t confirmed, all_to;
    bool *seen;
};

static void confirm(struct confirms *confirms, uint64_t tag) {
    if (confirms->seen[tag]) return;
    confirms->seen[tag] = true;
    confirms->confirmed++;
}

static void await_confirm(amqp_connection_state_t connection, struct confirms *confirms, uint64_t sent) {
    amqp_frame_t frame;
    check_status(amqp_simple_wait_frame(connection, &frame), "a confirm");
    if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD) {
        fail("something else than a confirm: frame %d, method %08x", frame.frame_type,
             (unsigned)frame.payload.method.id);
    }
    amqp_basic_ack_t *ack = frame.payload.method.decoded;
    if (ack->delivery_tag == 0 || ack->delivery_tag > sent) fail("a confirm of %" PRIu64, ack->delivery_tag);
    if (ack->multiple) {
        while (confirms->all_to < ack->delivery_tag) confirm(confirms, ++confirms->all_to);
    } else {
        confirm(confirms, ack->delivery_tag);
    }
    amqp_maybe_release_buffers(connection);
}

static void confirm_select(amqp_connection_state_t connection) {
    amqp_confirm_select(connection, CHANNEL);
    check_reply(amqp_get_rpc_reply(connection), "confirm.select");
}

static void publish_confirmed(amqp_connection_state_t connection, uint64_t count, struct confirms *confirms) {
    for (uint64_t sent = 0; sent < count; sent++) {
        while (sent - confirms->confirmed == WINDOW) await_confirm(connection, confirms, sent);
        publish_one(connection);
    }
    while (confirms->confirmed < count) await_confirm(connection, confirms, count);
}

static void start_consuming(amqp_connection_state_t connection, bool no_ack) {
    amqp_basic_consume(connection, CHANNEL, queue, amqp_empty_bytes, 0, no_ack, 0, amqp_empty_table);
    check_reply(amqp_get_rpc_reply(connection), "basic.consume");
}

static void qos(amqp_connection_state_t connection, uint16_t prefetch) {
    amqp_basic_qos(connection, CHANNEL, 0, prefetch, 0);
    check_reply(amqp_get_rpc_reply(connection), "basic.qos");
}

static void consume(amqp_connection_state_t connection, enum task task, uint64_t count) {
    const struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
    start_consuming(connection, task != CONSUME_AND_ACK);
    for (uint64_t number = 1; number <= count; number++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        check_reply(amqp_consume_message(connection, &envelope, NULL, 0), "consume");
        if (envelope.message.body.len != body.len) fail("a body of %zu B", envelope.message.body.len);
        if (task == CONSUME_AND_ACK) {
            check_status(amqp_basic_ack(connection, CHANNEL, envelope.delivery_tag, 0), "ack");
        }
        amqp_destroy_envelope(&envelope);
        if (task == CONSUME_AND_PAUSE && number % PAUSE_EVERY == 0) nanosleep(&pause, NULL);
    }
    /* Answered when the peer has all acknowledgements, which the peer itself counts. */
    if (task == CONSUME_AND_ACK) counted(connection);
}

static void connect_once(const char *uri, double *latency) {
    double begun = wall();
    amqp_connection_state_t connection = connect_to(uri);
    open_channel(connection, CHANNEL);
    *latency = wall() - begun;
    disconnect(connection);
}

static void idle(const char *uri, uint64_t count, struct figures *figures) {
    amqp_connection_state_t first = connect_to(uri);
    open_channel(first, CHANNEL);
    uint64_t before = memory_kib("VmRSS:");
    for (uint64_t number = 0; number < count; number++) connect_to(uri);
    uint64_t connected = memory_kib("VmRSS:");
    uint64_t channels = count * CHANNELS_PER_CONNECTION;
    for (uint64_t number = 0; number < channels; number++) open_channel(first, (amqp_channel_t)(CHANNEL + 1 + number));
    uint64_t opened = memory_kib("VmRSS:");
    figures->connection_kib = (double)(connected - before) / (double)count;
    figures->channel_kib = (double)(opened - connected) / (double)channels;
}

static int by_size(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double percentile_us(const double *sorted, uint64_t count, uint64_t of) {
    return sorted[(count * of + 99) / 100 - 1] * 1e6;
}

static void run(const struct workload *workload, const char *uri, uint64_t count, struct figures *figures) {
    enum task task = workload->task;
    amqp_connection_state_t connection = NULL;
    struct confirms confirms = {0};
    queue = amqp_cstring_bytes("bench");
    body.len = workload->size;
    body.bytes = malloc(workload->size + 1);
    figures->latencies = calloc(count, sizeof(double));
    confirms.seen = calloc(count + 1, sizeof(bool));
    if (!body.bytes || !figures->latencies || !confirms.seen) fail("no memory");
    memset(body.bytes, 'x', workload->size);
    if (task != CONNECT && task != IDLE) {
        connection = connect_to(uri);
        open_channel(connection, CHANNEL);
    }
    if (task == CONFIRMED || task == PUBLISH_AND_WAIT) confirm_select(connection);
    if (task == CONSUME_AND_ACK) qos(connection, PREFETCH);

    double cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID), begun = wall();
    switch (task) {
    case PUBLISH: publish(connection, count); break;
    case CONFIRMED: publish_confirmed(connection, count, &confirms); break;
    case CONSUME:
    case CONSUME_AND_ACK:
    case CONSUME_AND_PAUSE: consume(connection, task, count); break;
    case IDLE: idle(uri, count, figures); break;
    default:
        for (uint64_t number = 0; number < count; number++) {
            double asked = wall();
            if (task == PUBLISH_AND_WAIT) {
                publish_one(connection);
                while (confirms.confirmed <= number) await_confirm(connection, &confirms, number + 1);
            } else if (task == ROUND_TRIP) {
                qos(connection, 1);
                amqp_maybe_release_buffers(connection);
            }
            figures->latencies[number] = wall() - asked;
            if (task == CONNECT) connect_once(uri, &figures->latencies[number]);
        }
    }
    figures->seconds = wall() - begun;
    figures->cpu_seconds = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (connection) disconnect(connection);
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--version")) {
        puts(amqp_version());
        return 0;
    }
    if (argc != 8 || strcmp(argv[1], "once") || strcmp(argv[4], "--count") || strcmp(argv[6], "--uri")) {
        fprintf(stderr, "usage: %s once %s WORKLOAD --count N --uri URI\n", argv[0], client_name);
        return 2;
    }
    const struct workload *workload = NULL;
    workload_name = argv[3];
    for (size_t at = 0; at < sizeof WORKLOADS / sizeof *WORKLOADS; at++) {
        if (!strcmp(WORKLOADS[at].name, workload_name)) workload = &WORKLOADS[at];
    }
    uint64_t count = strtoull(argv[5], NULL, 10);
    if (!workload || !count) fail("cannot do it");

    struct figures figures = {0};
    run(workload, argv[7], count, &figures);
    printf("{\"client\":\"%s\",\"workload\":\"%s\",\"count\":%" PRIu64, client_name, workload_name, count);
    printf(",\"seconds\":%.9f,\"cpu_seconds\":%.9f,\"peak_kib\":%" PRIu64, figures.seconds, figures.cpu_seconds,
           memory_kib("VmHWM:"));
    if (workload->task == PUBLISH_AND_WAIT || workload->task == ROUND_TRIP || workload->task == CONNECT) {
        qsort(figures.latencies, count, sizeof(double), by_size);
        printf(",\"p50_us\":%.3f,\"p99_us\":%.3f", percentile_us(figures.latencies, count, 50),
               percentile_us(figures.latencies, count, 99));
    }
    if (workload->task == IDLE) {
        printf(",\"connection_kib\":%.3f,\"channel_kib\":%.3f", figures.connection_kib, figures.channel_kib);
    }
    puts("}");
    return 0;
}
