/* Mbed TLS 2.28; see bench.h. */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/timing.h>
#include <mbedtls/version.h>

#include "bench.h"

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context rng;
static mbedtls_ssl_config configs[2];
static mbedtls_x509_crt crts[2];
static mbedtls_pk_context pks[2];
static mbedtls_ssl_cookie_ctx cookies;
static mbedtls_ssl_ticket_context tickets;
static mbedtls_ssl_session saved;
/* The library has no question for it. */
static int ticket_was_taken;

typedef struct {
  mbedtls_ssl_context ssl;
  mbedtls_timing_delay_context timer;
  end *wire;
  int is_server;
} association;

static const char *peer_version(void) { return MBEDTLS_VERSION_STRING_FULL; }

static void check(int result, const char *what) {
  if (result >= 0) return;
  char text[128];
  mbedtls_strerror(result, text, sizeof text);
  die("%s: -%#x %s", what, (unsigned)-result, text);
}

static int verify(void *is_server, mbedtls_x509_crt *crt, int depth, uint32_t *flags) {
  if (depth == 0 && is_pinned(is_server != NULL, crt->raw.p, crt->raw.len)) *flags = 0;
  return 0;
}

static int parse_ticket(void *context, mbedtls_ssl_session *session, unsigned char *text, size_t length) {
  int result = mbedtls_ssl_ticket_parse(context, session, text, length);
  if (result == 0) ticket_was_taken = 1;
  return result;
}

static void peer_set_up(void) {
  static int suites[2];
  static const mbedtls_ecp_group_id groups[] = {MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_NONE};
  suites[0] = mbedtls_ssl_get_ciphersuite_id("TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256");
  mbedtls_entropy_init(&entropy);
  mbedtls_ctr_drbg_init(&rng);
  mbedtls_ssl_cookie_init(&cookies);
  mbedtls_ssl_ticket_init(&tickets);
  mbedtls_ssl_session_init(&saved);
  check(mbedtls_ctr_drbg_seed(&rng, mbedtls_entropy_func, &entropy, NULL, 0), "random numbers");
  for (int who = CLIENT; who <= SERVER; who++) {
    mbedtls_x509_crt_init(&crts[who]);
    mbedtls_pk_init(&pks[who]);
    check(mbedtls_x509_crt_parse_file(&crts[who], certificates[who]), "the certificate is not usable");
    check(mbedtls_pk_parse_keyfile(&pks[who], keys[who], NULL), "the key is not usable");
  }
  for (int who = CLIENT; who <= SERVER; who++) {
    mbedtls_ssl_config *config = &configs[who];
    mbedtls_ssl_config_init(config);
    check(mbedtls_ssl_config_defaults(config, who == SERVER ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                      MBEDTLS_SSL_TRANSPORT_DATAGRAM, MBEDTLS_SSL_PRESET_DEFAULT), "configuration");
    mbedtls_ssl_conf_rng(config, mbedtls_ctr_drbg_random, &rng);
    mbedtls_ssl_conf_min_version(config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_authmode(config, MBEDTLS_SSL_VERIFY_REQUIRED);
    /* The peer's own certificate as the authority spares a search; `verify` decides. */
    mbedtls_ssl_conf_ca_chain(config, &crts[!who], NULL);
    mbedtls_ssl_conf_verify(config, verify, who == SERVER ? config : NULL);
    mbedtls_ssl_conf_cert_req_ca_list(config, MBEDTLS_SSL_CERT_REQ_CA_LIST_DISABLED);
    check(mbedtls_ssl_conf_own_cert(config, &crts[who], &pks[who]), "the identity is not usable");
    mbedtls_ssl_conf_ciphersuites(config, suites);
    mbedtls_ssl_conf_curves(config, groups);
    mbedtls_ssl_conf_extended_master_secret(config, MBEDTLS_SSL_EXTENDED_MS_ENABLED);
  }
  check(mbedtls_ssl_cookie_setup(&cookies, mbedtls_ctr_drbg_random, &rng), "cookies");
  mbedtls_ssl_conf_dtls_cookies(&configs[SERVER], mbedtls_ssl_cookie_write, mbedtls_ssl_cookie_check, &cookies);
  check(mbedtls_ssl_ticket_setup(&tickets, mbedtls_ctr_drbg_random, &rng, MBEDTLS_CIPHER_AES_256_GCM, 3600), "tickets");
  mbedtls_ssl_conf_session_tickets_cb(&configs[SERVER], mbedtls_ssl_ticket_write, parse_ticket, &tickets);
}

static int wire_send(void *wire, const unsigned char *data, size_t length) {
  end_send(wire, data, length);
  return (int)length;
}

static int wire_receive(void *wire, unsigned char *data, size_t capacity) {
  int got = end_receive(wire, data, capacity);
  return got < 0 ? MBEDTLS_ERR_SSL_WANT_READ : got;
}

static void name_client(association *a) {
  check(mbedtls_ssl_set_client_transport_id(&a->ssl, (unsigned char *)&a->wire->to, sizeof a->wire->to), "client");
}

static void *peer_new(end *e, int is_server, int resuming) {
  association *a = calloc(1, sizeof *a);
  a->wire = e;
  a->is_server = is_server;
  mbedtls_ssl_init(&a->ssl);
  check(mbedtls_ssl_setup(&a->ssl, &configs[is_server ? SERVER : CLIENT]), "set-up");
  mbedtls_ssl_set_bio(&a->ssl, e, wire_send, wire_receive, NULL);
  mbedtls_ssl_set_timer_cb(&a->ssl, &a->timer, mbedtls_timing_set_delay, mbedtls_timing_get_delay);
  mbedtls_ssl_set_mtu(&a->ssl, MTU_BYTES);
  if (is_server) name_client(a);
  if (is_server) ticket_was_taken = 0;
  if (!is_server && resuming) check(mbedtls_ssl_set_session(&a->ssl, &saved), "the saved session");
  return a;
}

static int peer_step(void *session) {
  association *a = session;
  int done = mbedtls_ssl_handshake(&a->ssl);
  if (done == 0) return 1;
  if (done == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED) {
    mbedtls_ssl_session_reset(&a->ssl);
    name_client(a);
  } else if (done != MBEDTLS_ERR_SSL_WANT_READ) {
    check(done, "the handshake failed");
  }
  return 0;
}

static int peer_is_resumed(void *session) {
  (void)session;
  return ticket_was_taken;
}

static int peer_save(void *session) { return mbedtls_ssl_get_session(&((association *)session)->ssl, &saved) == 0; }

static void peer_write(void *session, const unsigned char *data, size_t length) {
  check(mbedtls_ssl_write(&((association *)session)->ssl, data, length), "cannot write");
}

static int peer_read(void *session, unsigned char *data, size_t capacity) {
  int got = mbedtls_ssl_read(&((association *)session)->ssl, data, capacity);
  return got > 0 ? got : -1;
}

static void peer_say_goodbye(void *session) { mbedtls_ssl_close_notify(&((association *)session)->ssl); }

static void peer_free(void *session) {
  mbedtls_ssl_free(&((association *)session)->ssl);
  free(session);
}
