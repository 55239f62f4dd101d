/* GnuTLS; see bench.h. */
#include <gnutls/dtls.h>
#include <gnutls/gnutls.h>

#include "bench.h"

typedef struct {
  gnutls_session_t tls;
  end *wire;
  int is_server, is_verified;
  /* The hello whose cookie was good, which the session reads first. */
  unsigned char hello[DATAGRAM_BYTES_MAX];
  int hello_length;
} association;

static gnutls_certificate_credentials_t credentials[2];
static gnutls_priority_t priorities;
static gnutls_datum_t saved, ticket_key, cookie_key;

static const char *peer_version(void) {
  static char text[64];
  snprintf(text, sizeof text, "GnuTLS %s", gnutls_check_version(NULL));
  return text;
}

static void check(int result, const char *what) {
  if (result < 0) die("%s: %s", what, gnutls_strerror(result));
}

static int verify(gnutls_session_t session) {
  association *a = gnutls_session_get_ptr(session);
  unsigned count = 0;
  const gnutls_datum_t *list = gnutls_certificate_get_peers(session, &count);
  return count && is_pinned(a->is_server, list[0].data, list[0].size) ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static void peer_set_up(void) {
  for (int who = CLIENT; who <= SERVER; who++) {
    check(gnutls_certificate_allocate_credentials(&credentials[who]), "credentials");
    check(gnutls_certificate_set_x509_key_file(credentials[who], certificates[who], keys[who], GNUTLS_X509_FMT_PEM),
          "the identity is not usable");
    gnutls_certificate_set_verify_function(credentials[who], verify);
  }
  check(gnutls_priority_init(&priorities,
                             "NONE:+VERS-DTLS1.2:+ECDHE-ECDSA:+AES-128-GCM:+AEAD:+SIGN-ECDSA-SHA256:+GROUP-SECP256R1:+COMP-NULL:+CTYPE-X509",
                             NULL), "priorities");
  check(gnutls_key_generate(&cookie_key, GNUTLS_COOKIE_KEY_SIZE), "cookie key");
  check(gnutls_session_ticket_key_generate(&ticket_key), "ticket key");
}

static ssize_t push(gnutls_transport_ptr_t pointer, const void *data, size_t length) {
  end_send(((association *)pointer)->wire, data, length);
  return (ssize_t)length;
}

static ssize_t pull(gnutls_transport_ptr_t pointer, void *data, size_t capacity) {
  association *a = pointer;
  int got;
  if (a->hello_length) {
    got = a->hello_length;
    memcpy(data, a->hello, (size_t)got);
    a->hello_length = 0;
  } else if ((got = end_receive(a->wire, data, capacity)) < 0) {
    gnutls_transport_set_errno(a->tls, EAGAIN);
  }
  return got;
}

static int has_something(gnutls_transport_ptr_t pointer, unsigned timeout_ms) {
  association *a = pointer;
  (void)timeout_ms;
  if (a->hello_length) return 1;
  return a->wire->in ? a->wire->in->count > 0 : recv(a->wire->fd, NULL, 0, MSG_PEEK | MSG_DONTWAIT) >= 0;
}

static void *peer_new(end *e, int is_server, int resuming) {
  association *a = malloc(sizeof *a);
  a->wire = e;
  a->is_server = is_server;
  a->is_verified = !is_server;
  a->hello_length = 0;
  check(gnutls_init(&a->tls, (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_DATAGRAM | GNUTLS_NONBLOCK), "session");
  gnutls_session_set_ptr(a->tls, a);
  check(gnutls_priority_set(a->tls, priorities), "priorities");
  check(gnutls_credentials_set(a->tls, GNUTLS_CRD_CERTIFICATE, credentials[is_server ? SERVER : CLIENT]), "credentials");
  if (is_server) {
    gnutls_certificate_server_set_request(a->tls, GNUTLS_CERT_REQUIRE);
    check(gnutls_session_ticket_enable_server(a->tls, &ticket_key), "tickets");
  }
  gnutls_transport_set_ptr(a->tls, a);
  gnutls_transport_set_push_function(a->tls, push);
  gnutls_transport_set_pull_function(a->tls, pull);
  gnutls_transport_set_pull_timeout_function(a->tls, has_something);
  gnutls_dtls_set_mtu(a->tls, MTU_BYTES);
  if (!is_server && resuming) check(gnutls_session_set_data(a->tls, saved.data, saved.size), "the saved session");
  return a;
}

/* The cookie exchange, which comes before the session's part; false if no good hello came. */
static int verify_address(association *a) {
  gnutls_dtls_prestate_st state;
  memset(&state, 0, sizeof state);
  int length = end_receive(a->wire, a->hello, sizeof a->hello);
  if (length < 0) return 0;
  void *client = &a->wire->to;
  size_t client_length = sizeof a->wire->to;
  if (gnutls_dtls_cookie_verify(&cookie_key, client, client_length, a->hello, (size_t)length, &state) < 0) {
    gnutls_dtls_cookie_send(&cookie_key, client, client_length, &state, a, push);
    return 0;
  }
  gnutls_dtls_prestate_set(a->tls, &state);
  a->hello_length = length;
  return 1;
}

static int peer_step(void *session) {
  association *a = session;
  if (!a->is_verified && !(a->is_verified = verify_address(a))) return 0;
  int done = gnutls_handshake(a->tls);
  if (done == GNUTLS_E_SUCCESS) {
    if (!gnutls_session_ext_master_secret_status(a->tls)) die("no extended master secret");
    return 1;
  }
  if (gnutls_error_is_fatal(done)) check(done, "the handshake failed");
  return 0;
}

static int peer_is_resumed(void *session) { return gnutls_session_is_resumed(((association *)session)->tls); }

static int peer_save(void *session) { return gnutls_session_get_data2(((association *)session)->tls, &saved) >= 0; }

static void peer_write(void *session, const unsigned char *data, size_t length) {
  check((int)gnutls_record_send(((association *)session)->tls, data, length), "cannot write");
}

static int peer_read(void *session, unsigned char *data, size_t capacity) {
  ssize_t got = gnutls_record_recv(((association *)session)->tls, data, capacity);
  return got > 0 ? (int)got : -1;
}

static void peer_say_goodbye(void *session) { gnutls_bye(((association *)session)->tls, GNUTLS_SHUT_WR); }

static void peer_free(void *session) {
  gnutls_deinit(((association *)session)->tls);
  free(session);
}
