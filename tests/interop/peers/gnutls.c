/* Echo over DTLS 1.2 with GnuTLS; see peer.h. */
#include <gnutls/dtls.h>
#include <gnutls/gnutls.h>

#include "peer.h"

static gnutls_certificate_credentials_t credentials;
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
  unsigned count = 0;
  const gnutls_datum_t *certificates = gnutls_certificate_get_peers(session, &count);
  if (!count || !is_pinned(certificates[0].data, certificates[0].size)) return GNUTLS_E_CERTIFICATE_ERROR;
  return 0;
}

static int log_key(gnutls_session_t session, const char *label, const gnutls_datum_t *secret) {
  gnutls_datum_t client, server;
  gnutls_session_get_random(session, &client, &server);
  if (!strcmp(label, "CLIENT_RANDOM") && secret->size == 48) log_master_secret(client.data, secret->data);
  return 0;
}

static void peer_set_up(void) {
  unsupported(options.has_cid, "CID");
  check(gnutls_certificate_allocate_credentials(&credentials), "credentials");
  check(gnutls_certificate_set_x509_key_file(credentials, options.certificate, options.key, GNUTLS_X509_FMT_PEM),
        "the identity is not usable");
  gnutls_certificate_set_verify_function(credentials, verify);
  check(gnutls_key_generate(&cookie_key, GNUTLS_COOKIE_KEY_SIZE), "cookie key");
  check(gnutls_session_ticket_key_generate(&ticket_key), "ticket key");
}

static gnutls_session_t new_session(void) {
  static const char *const ciphers[] = {"AES-128-GCM", "AES-256-GCM", "CHACHA20-POLY1305"};
  gnutls_session_t session;
  check(gnutls_init(&session, (options.is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_DATAGRAM | GNUTLS_NONBLOCK),
        "session");
  char priorities[256];
  int length = snprintf(priorities, sizeof priorities, "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:+ECDHE-ECDSA");
  if (options.suite != ANY_SUITE) {
    length += snprintf(priorities + length, sizeof priorities - length, ":-CIPHER-ALL:+%s", ciphers[options.suite]);
  }
  snprintf(priorities + length, sizeof priorities - length, "%s%s", options.ems ? "" : ":%NO_SESSION_HASH",
           options.renegotiation_info ? "" : ":%DISABLE_SAFE_RENEGOTIATION");
  check(gnutls_priority_set_direct(session, priorities, NULL), "priorities");
  check(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials), "credentials");
  if (options.is_server) {
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
    check(gnutls_session_ticket_enable_server(session, &ticket_key), "tickets");
  }
  if (options.mtu_bytes) gnutls_dtls_set_mtu(session, (unsigned)options.mtu_bytes);
  if (options.key_log) gnutls_session_set_keylog_function(session, log_key);
  return session;
}

static ssize_t push(gnutls_transport_ptr_t socket, const void *data, size_t length) {
  return send((int)(long)socket, data, length, 0);
}

/* The cookie exchange, which comes before there is a session. */
static void verify_address(gnutls_session_t session, int socket) {
  static unsigned char hello[DATAGRAM_BYTES_MAX];
  static char client[] = "client";
  gnutls_dtls_prestate_st state;
  for (;;) {
    memset(&state, 0, sizeof state);
    wait_readable(socket, -1);
    ssize_t length = recv(socket, hello, sizeof hello, MSG_PEEK);
    if (length > 0 && gnutls_dtls_cookie_verify(&cookie_key, client, sizeof client, hello, (size_t)length, &state) >= 0) break;
    if (length > 0) {
      gnutls_dtls_cookie_send(&cookie_key, client, sizeof client, &state, (gnutls_transport_ptr_t)(long)socket, push);
    }
    recv(socket, hello, sizeof hello, 0);
  }
  gnutls_dtls_prestate_set(session, &state);
}

static void *peer_open(int socket, int resuming) {
  gnutls_session_t session = new_session();
  gnutls_transport_set_int(session, socket);
  if (options.is_server) {
    verify_address(session, socket);
  } else if (resuming && saved.data) {
    check(gnutls_session_set_data(session, saved.data, saved.size), "the saved session");
  }
  int done;
  while ((done = gnutls_handshake(session)) != GNUTLS_E_SUCCESS) {
    if (gnutls_error_is_fatal(done)) {
      if (done != GNUTLS_E_FATAL_ALERT_RECEIVED) gnutls_alert_send_appropriate(session, done);
      if (done == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        fprintf(stderr, "alert: %s\n", gnutls_alert_get_name(gnutls_alert_get(session)));
      }
      check(done, "the handshake failed");
    }
    unsigned left = gnutls_dtls_get_timeout(session);
    wait_readable(socket, left ? (int)left : 1);
  }
  char name[96];
  snprintf(name, sizeof name, "%s", gnutls_ciphersuite_get(session));
  char *suite = strncmp(name, "TLS_", 4) ? name : name + 4;
  report(suite, gnutls_group_get_name(gnutls_group_get(session)), yes_or_no(gnutls_session_ext_master_secret_status(session)),
         NULL, gnutls_session_is_resumed(session));
  gnutls_dtls_set_mtu(session, OPEN_MTU_BYTES);
  return session;
}

static void peer_write(void *session, const unsigned char *data, size_t length) {
  check((int)gnutls_record_send((gnutls_session_t)session, data, length), "cannot write");
}

static int peer_read(void *session, unsigned char *data, size_t capacity, int timeout_ms) {
  gnutls_session_t gnutls = session;
  if (!gnutls_record_check_pending(gnutls) && !wait_readable(gnutls_transport_get_int(gnutls), timeout_ms)) return PEER_NOTHING;
  ssize_t got = gnutls_record_recv(gnutls, data, capacity);
  if (got > 0) return (int)got;
  if (got == 0) return PEER_CLOSED;
  if (gnutls_error_is_fatal((int)got)) check((int)got, "cannot read");
  return PEER_NOTHING;
}

static void peer_close(void *session) {
  gnutls_session_t gnutls = session;
  if (!options.is_server && !saved.data) gnutls_session_get_data2(gnutls, &saved);
  gnutls_bye(gnutls, GNUTLS_SHUT_WR);
  gnutls_deinit(gnutls);
}
