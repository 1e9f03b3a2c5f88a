/* A client in C: librabbitmq as in its examples, JSON by cJSON.

   librabbitmq WORK HOST PORT USER PASSWORD SOURCE TARGET COUNT PREFETCH WINDOW     ("-" for no queue)

   consume: amqp_consume_message, an acknowledgement for each message. hop: each message is published on, on a channel with
   confirms, and acknowledged when its confirm has come. publish: WINDOW messages wait for their confirm at once. The
   ledger is that of benchmarks/ledger.py, in the folder BENCH_LEDGER. */

#include <amqp.h>
#include <amqp_tcp_socket.h>
#include <cjson/cJSON.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CONSUMING = 1, PUBLISHING = 2 };

static amqp_connection_state_t connection;
static long long expected, counted, sum;
static double began, began_cpu;
static unsigned char *is_open; /* by the number of the publication, from 1: whether its confirm is still to come */
static long long oldest = 1;

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void check(int status, const char *what) {
  if (status < 0) {
    fprintf(stderr, "%s: %s\n", what, amqp_error_string2(status));
    exit(1);
  }
}

static void check_reply(const char *what) {
  if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) fail(what);
}

static double seconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void begin(void) {
  began_cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
  began = seconds(CLOCK_MONOTONIC);
}

static void write_ledger(void) {
  double ended = seconds(CLOCK_MONOTONIC), cpu_s = seconds(CLOCK_PROCESS_CPUTIME_ID) - began_cpu;
  char name[4096], unfinished[4096 + 8];
  snprintf(name, sizeof name, "%s/ledger-%d.json", getenv("BENCH_LEDGER"), (int)getpid());
  snprintf(unfinished, sizeof unfinished, "%s.part", name);
  FILE *file = fopen(unfinished, "w");
  if (file == NULL) fail("the ledger cannot be written");
  fprintf(file, "{\"count\": %lld, \"sum\": %lld, \"began\": %.9f, \"ended\": %.9f, \"cpu_s\": %.9f}", counted, sum, began,
          ended, cpu_s);
  fclose(file);
  if (rename(unfinished, name) != 0) fail("the ledger cannot be renamed");
}

static void note(long long number) {
  if (began == 0) begin();
  counted++;
  sum += number;
  if (counted >= expected) write_ledger();
}

/* What a handler does: decode the body, count it. The caller deletes the result. */
static cJSON *handled(amqp_bytes_t body) {
  cJSON *payload = cJSON_ParseWithLength(body.bytes, body.len);
  cJSON *number = cJSON_GetObjectItemCaseSensitive(payload, "number");
  if (!cJSON_IsNumber(number)) fail("a body without a number");
  note((long long)number->valuedouble);
  return payload;
}

static char *encoded(long long number) {
  cJSON *payload = cJSON_CreateObject();
  cJSON_AddNumberToObject(payload, "number", (double)number);
  cJSON_AddStringToObject(payload, "customer", "Ada Lovelace");
  cJSON_AddStringToObject(payload, "article", "analytical engine");
  cJSON_AddNumberToObject(payload, "quantity", 3);
  cJSON_AddTrueToObject(payload, "urgent");
  char *text = cJSON_PrintUnformatted(payload);
  cJSON_Delete(payload);
  return text;
}

static void publish(const char *queue, amqp_bytes_t body) {
  amqp_basic_properties_t properties = {
      ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
      .content_type = amqp_cstring_bytes("application/json"),
      .delivery_mode = 2,
  };
  check(amqp_basic_publish(connection, PUBLISHING, amqp_empty_bytes, amqp_cstring_bytes(queue), 0, 0, &properties, body),
        "publish");
}

/* Waits for one confirm and returns it; `closed` is called for each publication that it is for. */
static amqp_basic_ack_t confirm(long long sent, void (*closed)(long long)) {
  amqp_frame_t frame;
  check(amqp_simple_wait_frame(connection, &frame), "wait for a confirm");
  if (frame.frame_type != AMQP_FRAME_METHOD || frame.payload.method.id != AMQP_BASIC_ACK_METHOD)
    fail("something else than a confirm came");
  amqp_basic_ack_t ack = *(amqp_basic_ack_t *)frame.payload.method.decoded;
  long long last = (long long)ack.delivery_tag;
  for (long long number = ack.multiple ? oldest : last; number <= last; number++)
    if (is_open[number]) {
      is_open[number] = 0;
      closed(number);
    }
  while (oldest <= sent && !is_open[oldest]) oldest++;
  return ack;
}

static void count_published(long long number) { note(number - 1); }

static void count_nothing(long long number) { (void)number; }

static void publish_all(const char *target, int window) {
  long long sent = 0;
  begin();
  while (counted < expected) {
    while (sent < expected && sent - counted < window) {
      char *text = encoded(sent);
      publish(target, amqp_cstring_bytes(text));
      free(text);
      is_open[++sent] = 1;
    }
    confirm(sent, count_published);
  }
}

static void start_consuming(const char *source, int prefetch) {
  amqp_basic_qos(connection, CONSUMING, 0, (uint16_t)prefetch, 0);
  check_reply("basic.qos");
  amqp_basic_consume(connection, CONSUMING, amqp_cstring_bytes(source), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
  check_reply("basic.consume");
}

/* Messages are published on in the order of their deliveries, both counted from 1: a confirm is an acknowledgement of the
   deliveries with the same numbers. */
static void work_on(const char *target) {
  long long came = 0;
  while (came < expected || (target != NULL && oldest <= came)) {
    amqp_envelope_t envelope;
    amqp_maybe_release_buffers(connection);
    amqp_rpc_reply_t reply = amqp_consume_message(connection, &envelope, NULL, 0);
    if (reply.reply_type == AMQP_RESPONSE_NORMAL) {
      cJSON *payload = handled(envelope.message.body);
      came++;
      if (target == NULL) {
        check(amqp_basic_ack(connection, CONSUMING, envelope.delivery_tag, 0), "basic.ack");
      } else {
        char *text = cJSON_PrintUnformatted(payload);
        publish(target, amqp_cstring_bytes(text));
        free(text);
        is_open[came] = 1;
      }
      cJSON_Delete(payload);
      amqp_destroy_envelope(&envelope);
    } else if (target != NULL && reply.library_error == AMQP_STATUS_UNEXPECTED_STATE) {
      amqp_basic_ack_t ack = confirm(came, count_nothing);
      check(amqp_basic_ack(connection, CONSUMING, ack.delivery_tag, ack.multiple), "basic.ack");
    } else {
      fail(amqp_error_string2(reply.library_error));
    }
  }
}

static void open_connection(char **arguments) {
  connection = amqp_new_connection();
  amqp_socket_t *socket = amqp_tcp_socket_new(connection);
  check(amqp_socket_open(socket, arguments[0], atoi(arguments[1])), "connect");
  if (amqp_login(connection, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, arguments[2], arguments[3]).reply_type !=
      AMQP_RESPONSE_NORMAL)
    fail("login");
  amqp_channel_open(connection, CONSUMING);
  check_reply("channel.open");
  amqp_channel_open(connection, PUBLISHING);
  check_reply("channel.open");
  amqp_confirm_select(connection, PUBLISHING);
  check_reply("confirm.select");
}

int main(int count, char **arguments) {
  if (count != 11) fail("WORK HOST PORT USER PASSWORD SOURCE TARGET COUNT PREFETCH WINDOW");
  const char *work = arguments[1], *source = arguments[6], *target = arguments[7];
  expected = atoll(arguments[8]);
  is_open = calloc((size_t)expected + 1, 1);
  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  sigprocmask(SIG_BLOCK, &end, NULL);
  open_connection(arguments + 2);
  if (strcmp(work, "publish") == 0) {
    publish_all(target, atoi(arguments[10]));
  } else {
    start_consuming(source, atoi(arguments[9]));
    work_on(strcmp(work, "hop") == 0 ? target : NULL);
    int number;
    sigwait(&end, &number);
  }
  amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
  amqp_destroy_connection(connection);
  return 0;
}
