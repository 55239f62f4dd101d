// Echo over DTLS 1.2 with Botan; see peer.h.
#include <botan/auto_rng.h>
#include <botan/credentials_manager.h>
#include <botan/data_src.h>
#include <botan/pkcs8.h>
#include <botan/tls_client.h>
#include <botan/tls_exceptn.h>
#include <botan/tls_policy.h>
#include <botan/tls_server.h>
#include <botan/tls_session_manager.h>
#include <botan/version.h>
#include <botan/x509cert.h>

#include <deque>
#include <memory>

#include "peer.h"

namespace {

using Bytes = std::vector<uint8_t>;
namespace TLS = Botan::TLS;

class Policy : public TLS::Policy {
 public:
  std::vector<std::string> allowed_ciphers() const override {
    static const char *const names[] = {"AES-128/GCM", "AES-256/GCM", "ChaCha20Poly1305"};
    if (options.suite == ANY_SUITE) return {names, names + ANY_SUITE};
    return {names[options.suite]};
  }
  std::vector<std::string> allowed_key_exchange_methods() const override { return {"ECDH"}; }
  std::vector<std::string> allowed_signature_methods() const override { return {"ECDSA"}; }
  bool allow_tls12() const override { return false; }
  bool allow_dtls10() const override { return false; }
  bool allow_dtls12() const override { return true; }
  bool require_cert_revocation_info() const override { return false; }
  bool require_client_certificate_authentication() const override { return true; }
  size_t dtls_default_mtu() const override {
    return options.mtu_bytes ? static_cast<size_t>(options.mtu_bytes) : TLS::Policy::dtls_default_mtu();
  }
};

class Credentials : public Botan::Credentials_Manager {
 public:
  Credentials() : certificate_(options.certificate) {
    Botan::DataSource_Stream source(options.key);
    key_ = Botan::PKCS8::load_key(source);
  }
  std::vector<Botan::X509_Certificate> cert_chain(const std::vector<std::string> &types, const std::string &,
                                                  const std::string &) override {
    for (const auto &type : types) {
      if (type == key_->algo_name()) return {certificate_};
    }
    return {};
  }
  Botan::Private_Key *private_key_for(const Botan::X509_Certificate &, const std::string &, const std::string &) override {
    return key_.get();
  }
  std::vector<Botan::Certificate_Store *> trusted_certificate_authorities(const std::string &, const std::string &) override {
    return {};
  }
  // Keys of tickets and cookies.
  Botan::SymmetricKey psk(const std::string &type, const std::string &context, const std::string &identity) override {
    if (type == "tls-server" && (context == "session-ticket" || context == "dtls-cookie-secret")) {
      return Botan::SymmetricKey(std::string(64, '5'));
    }
    return Credentials_Manager::psk(type, context, identity);
  }

 private:
  Botan::X509_Certificate certificate_;
  std::unique_ptr<Botan::Private_Key> key_;
};

class Callbacks : public TLS::Callbacks {
 public:
  explicit Callbacks(int socket) : socket_(socket) {}
  void tls_emit_data(const uint8_t data[], size_t length) override {
    if (send(socket_, data, length, 0) < 0 && errno != ECONNREFUSED) fprintf(stderr, "send: %s\n", strerror(errno));
  }
  void tls_record_received(uint64_t, const uint8_t data[], size_t length) override { received.emplace_back(data, data + length); }
  void tls_alert(TLS::Alert alert) override {
    fprintf(stderr, "alert: %s\n", alert.type_string().c_str());
    if (alert.type() == TLS::Alert::CLOSE_NOTIFY) closed = true;
  }
  bool tls_session_established(const TLS::Session &session) override {
    suite = session.ciphersuite().to_string();
    ems = session.supports_extended_master_secret();
    master_secret = session.master_secret();
    return true;
  }
  void tls_verify_cert_chain(const std::vector<Botan::X509_Certificate> &chain,
                             const std::vector<std::shared_ptr<const Botan::OCSP::Response>> &,
                             const std::vector<Botan::Certificate_Store *> &, Botan::Usage_Type, const std::string &,
                             const TLS::Policy &) override {
    verified = true;
    const auto der = chain.at(0).BER_encode();
    if (!is_pinned(der.data(), der.size())) {
      throw TLS::TLS_Exception(TLS::Alert::BAD_CERTIFICATE, "the peer's certificate is not the one in PEER_CERT");
    }
  }

  std::deque<Bytes> received;
  std::string suite;
  bool ems = false, closed = false, verified = false;
  Botan::secure_vector<uint8_t> master_secret;

 private:
  int socket_;
};

Botan::AutoSeeded_RNG rng;
Policy policy;
std::unique_ptr<Credentials> credentials;
std::unique_ptr<TLS::Session_Manager> sessions;

struct Association {
  int socket;
  Callbacks callbacks;
  std::unique_ptr<TLS::Channel> channel;

  // True if a datagram came within the time.
  bool take(int timeout_ms) {
    if (!wait_readable(socket, timeout_ms)) return false;
    static uint8_t datagram[DATAGRAM_BYTES_MAX];
    const ssize_t length = recv(socket, datagram, sizeof datagram, 0);
    if (length > 0) channel->received_data(datagram, static_cast<size_t>(length));
    return true;
  }
};

}  // namespace

static const char *peer_version(void) {
  static const std::string text = Botan::short_version_string();
  static const std::string named = "Botan " + text;
  return named.c_str();
}

static void peer_set_up(void) {
  unsupported(options.has_cid, "CID");
  unsupported(options.key_log != nullptr, "KEYLOG");
  unsupported(!options.ems, "EMS=0");
  unsupported(!options.renegotiation_info, "RENEGOTIATION_INFO=0");
  credentials.reset(new Credentials);
  sessions.reset(new TLS::Session_Manager_In_Memory(rng));
}

static void *peer_open(int socket, int) {
  auto *association = new Association{socket, Callbacks(socket), nullptr};
  try {
    if (options.is_server) {
      association->channel.reset(new TLS::Server(association->callbacks, *sessions, *credentials, policy, rng, true));
    } else {
      association->channel.reset(new TLS::Client(association->callbacks, *sessions, *credentials, policy, rng,
                                                 TLS::Server_Information("peer", 1), TLS::Protocol_Version::DTLS_V12));
    }
    while (!association->channel->is_active()) {
      if (!association->take(50)) association->channel->timeout_check();
      if (association->channel->is_closed()) die("the handshake failed");
    }
  } catch (const std::exception &error) {
    die("the handshake failed: %s", error.what());
  }
  const auto &callbacks = association->callbacks;
  report(callbacks.suite.c_str(), nullptr, yes_or_no(callbacks.ems), nullptr, !callbacks.verified);
  return association;
}

static void peer_write(void *session, const unsigned char *data, size_t length) {
  static_cast<Association *>(session)->channel->send(data, length);
}

static int peer_read(void *session, unsigned char *data, size_t capacity, int timeout_ms) {
  auto *association = static_cast<Association *>(session);
  auto &received = association->callbacks.received;
  try {
    if (received.empty()) association->take(timeout_ms);
  } catch (const std::exception &error) {
    die("cannot read: %s", error.what());
  }
  if (received.empty()) return association->callbacks.closed ? PEER_CLOSED : PEER_NOTHING;
  const Bytes message = received.front();
  received.pop_front();
  const size_t length = message.size() < capacity ? message.size() : capacity;
  memcpy(data, message.data(), length);
  return static_cast<int>(length);
}

static void peer_close(void *session) {
  auto *association = static_cast<Association *>(session);
  if (!association->channel->is_closed()) association->channel->close();
  delete association;
}
