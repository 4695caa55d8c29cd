/* Two ICE agents of libnice, relay-only through one TURN server, that exchange datagrams.
 *
 *     cc libnice_pair.c -o libnice_pair $(pkg-config --cflags --libs nice)
 *     ./libnice_pair 127.0.0.1 3478 udp NAME PASSWORD 100
 *
 * Prints `{"local": type, "remote": type, "echoed": N}`. libnice knows "udp" and "tcp"; its TLS is one of old Google servers.
 */
#include <agent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An upper bound for a broken relay on a loaded machine, not a pace. */
#define PATIENCE_SECONDS 45

typedef struct {
  NiceAgent *agent;
  guint stream;
  gboolean gathered;
} Side;

static Side one, other;
static GMainLoop *loop;
static int messages, echoed, ready;

static const char *type_name(NiceCandidate *candidate) {
  return candidate->type == NICE_CANDIDATE_TYPE_RELAYED ? "relay" : "another";
}

static void send_next(void) {
  char text[64];
  int length = snprintf(text, sizeof text, "message %d %.*s", echoed, echoed % 7, "xxxxxxx");
  nice_agent_send(one.agent, one.stream, 1, length, text);
}

static void finish(void) {
  NiceCandidate *local, *remote;
  if (!nice_agent_get_selected_pair(one.agent, one.stream, 1, &local, &remote)) exit(1);
  printf("{\"local\": \"%s\", \"remote\": \"%s\", \"echoed\": %d}\n", type_name(local), type_name(remote), echoed);
  g_main_loop_quit(loop);
}

/* `other` sends everything back; `one` compares and goes on. */
static void on_data(NiceAgent *agent, guint stream, guint component, guint length, gchar *data, gpointer unused) {
  char expected[64];
  (void)component;
  (void)unused;
  if (agent == other.agent) {
    nice_agent_send(agent, stream, 1, length, data);
    return;
  }
  guint wanted = (guint)snprintf(expected, sizeof expected, "message %d %.*s", echoed, echoed % 7, "xxxxxxx");
  if (length != wanted || memcmp(data, expected, length) != 0) {
    fprintf(stderr, "message %d arrived altered\n", echoed);
    exit(1);
  }
  if (++echoed == messages) finish();
  else send_next();
}

static void introduce(Side *from, Side *to) {
  gchar *ufrag, *password;
  nice_agent_get_local_credentials(from->agent, from->stream, &ufrag, &password);
  nice_agent_set_remote_credentials(to->agent, to->stream, ufrag, password);
  GSList *candidates = nice_agent_get_local_candidates(from->agent, from->stream, 1);
  nice_agent_set_remote_candidates(to->agent, to->stream, 1, candidates);
  g_slist_free_full(candidates, (GDestroyNotify)nice_candidate_free);
  g_free(ufrag);
  g_free(password);
}

static void on_gathered(NiceAgent *agent, guint stream, gpointer unused) {
  (void)stream;
  (void)unused;
  (agent == one.agent ? &one : &other)->gathered = TRUE;
  if (one.gathered && other.gathered) {
    introduce(&one, &other);
    introduce(&other, &one);
  }
}

static void on_state(NiceAgent *agent, guint stream, guint component, guint state, gpointer unused) {
  (void)agent;
  (void)stream;
  (void)component;
  (void)unused;
  if (state == NICE_COMPONENT_STATE_FAILED) {
    fprintf(stderr, "no pair works\n");
    exit(1);
  }
  if (state == NICE_COMPONENT_STATE_READY && ++ready == 2) send_next();
}

static void start(Side *side, gboolean controlling, char **arguments) {
  NiceAddress loopback;
  nice_address_init(&loopback);
  nice_address_set_from_string(&loopback, "127.0.0.1");
  side->agent = nice_agent_new(g_main_loop_get_context(loop), NICE_COMPATIBILITY_RFC5245);
  nice_agent_add_local_address(side->agent, &loopback);
  g_object_set(side->agent, "controlling-mode", controlling, "force-relay", TRUE, "upnp", FALSE, NULL);
  g_signal_connect(side->agent, "candidate-gathering-done", G_CALLBACK(on_gathered), NULL);
  g_signal_connect(side->agent, "component-state-changed", G_CALLBACK(on_state), NULL);
  side->stream = nice_agent_add_stream(side->agent, 1);
  NiceRelayType relay = strcmp(arguments[3], "udp") == 0 ? NICE_RELAY_TYPE_TURN_UDP : NICE_RELAY_TYPE_TURN_TCP;
  nice_agent_set_relay_info(side->agent, side->stream, 1, arguments[1], (guint)atoi(arguments[2]), arguments[4],
                            arguments[5], relay);
  nice_agent_attach_recv(side->agent, side->stream, 1, g_main_loop_get_context(loop), on_data, NULL);
  nice_agent_gather_candidates(side->agent, side->stream);
}

static gboolean too_late(gpointer unused) {
  (void)unused;
  fprintf(stderr, "not in time\n");
  exit(1);
}

/* The loop ends once libnice has deleted the stream's allocations. */
static void on_closed(GObject *source, GAsyncResult *result, gpointer left) {
  (void)source;
  (void)result;
  if (--*(int *)left == 0) g_main_loop_quit(loop);
}

int main(int count, char **arguments) {
  int left = 2;
  if (count != 7) {
    fprintf(stderr, "usage: libnice_pair HOST PORT udp|tcp NAME PASSWORD MESSAGES\n");
    return 2;
  }
  messages = atoi(arguments[6]);
  loop = g_main_loop_new(NULL, FALSE);
  g_timeout_add_seconds(PATIENCE_SECONDS, too_late, NULL);
  start(&one, TRUE, arguments);
  start(&other, FALSE, arguments);
  g_main_loop_run(loop);
  nice_agent_close_async(one.agent, on_closed, &left);
  nice_agent_close_async(other.agent, on_closed, &left);
  g_main_loop_run(loop);
  return 0;
}
