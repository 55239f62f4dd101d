/* Echo over DTLS 1.2 with Mbed TLS; see peer.h. */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/debug.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_cookie.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/timing.h>
#include <mbedtls/version.h>

#include "peer.h"

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context rng;
static mbedtls_ssl_config config;
static mbedtls_x509_crt certificate;
static mbedtls_pk_context key;
static mbedtls_ssl_cookie_ctx cookies;
static mbedtls_ssl_ticket_context tickets;
static mbedtls_ssl_session saved;
static int has_saved, resumed;

/* One association. */
typedef struct {
  mbedtls_ssl_context ssl;
  mbedtls_net_context net;
  mbedtls_timing_delay_context timer;
} association;

static const char *peer_version(void) { return MBEDTLS_VERSION_STRING_FULL; }

static void check(int result, const char *what) {
  if (result >= 0) return;
  char text[128];
  mbedtls_strerror(result, text, sizeof text);
  die("%s: -%#x %s", what, (unsigned)-result, text);
}

static int verify(void *unused, mbedtls_x509_crt *crt, int depth, uint32_t *flags) {
  (void)unused;
  if (depth == 0 && is_pinned(crt->raw.p, crt->raw.len)) *flags = 0;
  return 0;
}

static int log_key(void *unused, const unsigned char *secret, const unsigned char *block, size_t mac_length,
                   size_t key_length, size_t iv_length, const unsigned char client_random[32],
                   const unsigned char server_random[32], mbedtls_tls_prf_types prf) {
  (void)unused, (void)block, (void)mac_length, (void)key_length, (void)iv_length, (void)server_random, (void)prf;
  log_master_secret(client_random, secret);
  return 0;
}

/* Tells that a ticket was taken: the library has no question for it. */
static int parse_ticket(void *context, mbedtls_ssl_session *session, unsigned char *text, size_t length) {
  int result = mbedtls_ssl_ticket_parse(context, session, text, length);
  if (result == 0) resumed = 1;
  return result;
}

static void peer_set_up(void) {
#ifndef MBEDTLS_SSL_DTLS_CONNECTION_ID
  unsupported(options.has_cid, "CID");
#endif
  unsupported(!options.renegotiation_info, "RENEGOTIATION_INFO=0");
  mbedtls_entropy_init(&entropy);
  mbedtls_ctr_drbg_init(&rng);
  mbedtls_ssl_config_init(&config);
  mbedtls_x509_crt_init(&certificate);
  mbedtls_pk_init(&key);
  mbedtls_ssl_cookie_init(&cookies);
  mbedtls_ssl_ticket_init(&tickets);
  mbedtls_ssl_session_init(&saved);
  check(mbedtls_ctr_drbg_seed(&rng, mbedtls_entropy_func, &entropy, NULL, 0), "random numbers");
  check(mbedtls_x509_crt_parse_file(&certificate, options.certificate), "the certificate is not usable");
  check(mbedtls_pk_parse_keyfile(&key, options.key, NULL), "the key is not usable");
  check(mbedtls_ssl_config_defaults(&config, options.is_server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
                                    MBEDTLS_SSL_TRANSPORT_DATAGRAM, MBEDTLS_SSL_PRESET_DEFAULT), "configuration");
  mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &rng);
  mbedtls_ssl_conf_min_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
  mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_REQUIRED);
  /* Some authority has to be there; `verify` decides. */
  mbedtls_ssl_conf_ca_chain(&config, &certificate, NULL);
  mbedtls_ssl_conf_verify(&config, verify, NULL);
  /* No list of authorities in the request: some clients then find that their certificate is from none. */
  mbedtls_ssl_conf_cert_req_ca_list(&config, MBEDTLS_SSL_CERT_REQ_CA_LIST_DISABLED);
  check(mbedtls_ssl_conf_own_cert(&config, &certificate, &key), "the identity is not usable");
  static int suites[ANY_SUITE + 1];
  static const char *const names[] = {"TLS-ECDHE-ECDSA-WITH-AES-128-GCM-SHA256", "TLS-ECDHE-ECDSA-WITH-AES-256-GCM-SHA384",
                                      "TLS-ECDHE-ECDSA-WITH-CHACHA20-POLY1305-SHA256"};
  int count = 0;
  for (int i = 0; i < ANY_SUITE; i++) {
    if (options.suite == ANY_SUITE || (int)options.suite == i) suites[count++] = mbedtls_ssl_get_ciphersuite_id(names[i]);
  }
  mbedtls_ssl_conf_ciphersuites(&config, suites);
  mbedtls_ssl_conf_extended_master_secret(&config, options.ems);
  if (options.key_log) mbedtls_ssl_conf_export_keys_ext_cb(&config, log_key, NULL);
  if (options.is_server) {
    check(mbedtls_ssl_cookie_setup(&cookies, mbedtls_ctr_drbg_random, &rng), "cookies");
    mbedtls_ssl_conf_dtls_cookies(&config, mbedtls_ssl_cookie_write, mbedtls_ssl_cookie_check, &cookies);
    check(mbedtls_ssl_ticket_setup(&tickets, mbedtls_ctr_drbg_random, &rng, MBEDTLS_CIPHER_AES_256_GCM, 3600), "tickets");
    mbedtls_ssl_conf_session_tickets_cb(&config, mbedtls_ssl_ticket_write, parse_ticket, &tickets);
  }
#ifdef MBEDTLS_SSL_DTLS_CONNECTION_ID
  if (options.has_cid) check(mbedtls_ssl_conf_cid(&config, options.cid_length, MBEDTLS_SSL_UNEXPECTED_CID_IGNORE), "CID");
#endif
}

static void set_timer(void *context, uint32_t intermediate_ms, uint32_t final_ms) {
  mbedtls_timing_set_delay(context, intermediate_ms, final_ms);
}

static void *peer_open(int socket, int resuming) {
  association *a = calloc(1, sizeof *a);
  mbedtls_ssl_init(&a->ssl);
  check(mbedtls_ssl_setup(&a->ssl, &config), "set-up");
  a->net.fd = socket;
  mbedtls_ssl_set_bio(&a->ssl, &a->net, mbedtls_net_send, mbedtls_net_recv, NULL);
  mbedtls_ssl_set_timer_cb(&a->ssl, &a->timer, set_timer, mbedtls_timing_get_delay);
  if (options.mtu_bytes) mbedtls_ssl_set_mtu(&a->ssl, (uint16_t)options.mtu_bytes);
#ifdef MBEDTLS_SSL_DTLS_CONNECTION_ID
  if (options.has_cid) check(mbedtls_ssl_set_cid(&a->ssl, 1, options.cid, options.cid_length), "CID");
#endif
  if (!options.is_server && resuming && has_saved) check(mbedtls_ssl_set_session(&a->ssl, &saved), "the saved session");
  resumed = 0;
  for (;;) {
    if (options.is_server) check(mbedtls_ssl_set_client_transport_id(&a->ssl, (const unsigned char *)"client", 6), "client");
    int done = mbedtls_ssl_handshake(&a->ssl);
    if (done == 0) break;
    if (done == MBEDTLS_ERR_SSL_HELLO_VERIFY_REQUIRED) {
      mbedtls_ssl_session_reset(&a->ssl);
    } else if (done != MBEDTLS_ERR_SSL_WANT_READ && done != MBEDTLS_ERR_SSL_WANT_WRITE) {
      check(done, "the handshake failed");
    } else {
      wait_readable(socket, 50);
    }
  }
  /* A server sees its ticket come back, a client no second certificate message. */
  char name[96];
  snprintf(name, sizeof name, "%s", mbedtls_ssl_get_ciphersuite(&a->ssl) + strlen("TLS-"));
  for (char *c = name; *c; c++) {
    if (*c == '-') *c = '_';
  }
  int is_resumed = resumed;
  if (!options.is_server && resuming && has_saved) {
    mbedtls_ssl_session now;
    mbedtls_ssl_session_init(&now);
    if (mbedtls_ssl_get_session(&a->ssl, &now) == 0) is_resumed = !memcmp(now.master, saved.master, sizeof now.master);
    mbedtls_ssl_session_free(&now);
  }
  report(name, NULL, NULL, options.has_cid ? "yes" : "no", is_resumed);
  mbedtls_ssl_set_mtu(&a->ssl, OPEN_MTU_BYTES);
  return a;
}

static void peer_write(void *session, const unsigned char *data, size_t length) {
  association *a = session;
  check(mbedtls_ssl_write(&a->ssl, data, length), "cannot write");
}

static int peer_read(void *session, unsigned char *data, size_t capacity, int timeout_ms) {
  association *a = session;
  if (!mbedtls_ssl_check_pending(&a->ssl) && !wait_readable(a->net.fd, timeout_ms)) return PEER_NOTHING;
  int got = mbedtls_ssl_read(&a->ssl, data, capacity);
  if (got > 0) return got;
  if (got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) return PEER_CLOSED;
  if (got != MBEDTLS_ERR_SSL_WANT_READ && got != MBEDTLS_ERR_SSL_WANT_WRITE) check(got, "cannot read");
  return PEER_NOTHING;
}

static void peer_close(void *session) {
  association *a = session;
  if (!options.is_server && !has_saved) has_saved = mbedtls_ssl_get_session(&a->ssl, &saved) == 0;
  mbedtls_ssl_close_notify(&a->ssl);
  mbedtls_ssl_free(&a->ssl);
  free(a);
}
