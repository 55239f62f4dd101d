// Copied into the runner's package: keeps the tests that a DTLS 1.2 endpoint is judged by, and
// gives them certificates and cipher suites that it has.

package runner

import (
	"slices"
	"strings"
)

// selectTests is called once all tests have been added.
func selectTests() {
	testCases = slices.DeleteFunc(testCases, func(t testCase) bool { return !concernsDTLS12(&t) })
	for i := range testCases {
		withoutRSA(&testCases[i])
		withoutSessionIDs(&testCases[i])
	}
}

// concernsDTLS12 tells whether version 1.2 can take part in a test: those bound to it, and those
// bound to none.
func concernsDTLS12(t *testCase) bool {
	name := "-" + t.name + "-"
	return t.protocol == dtls &&
		t.config.MinVersion <= VersionTLS12 &&
		(t.config.MaxVersion == 0 || t.config.MaxVersion >= VersionTLS12) &&
		(t.expectations.version == 0 || t.expectations.version == VersionTLS12) &&
		!strings.Contains(name, "-TLS1-") && !strings.Contains(name, "TLS13-")
}

// withoutRSA puts ECDSA P-256 where a test has RSA only because that is the runner's default.
func withoutRSA(t *testCase) {
	if strings.Contains(t.name, "RSA") && !strings.Contains(t.name, "ECDSA") {
		return
	}
	if t.testType == clientTest && t.config.Credential == nil {
		t.config.Credential = &rsaCertificate
	}
	if t.testType == serverTest && t.shimCertificate == nil && len(t.shimCredentials) == 0 &&
		len(t.resumeShimCredentials) == 0 && len(t.config.PreSharedKey) == 0 {
		t.shimCertificate = &rsaCertificate
	}
	for _, credential := range []**Credential{
		&t.config.Credential, &t.shimCertificate, &t.expectations.peerCertificate,
	} {
		if *credential == &rsaCertificate || *credential == &rsaChainCertificate {
			*credential = &ecdsaP256Certificate
		}
	}
	suites := slices.Clone(t.config.CipherSuites)
	for i, suite := range suites {
		switch suite {
		case TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
			suites[i] = TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
		case TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
			suites[i] = TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
		case TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
			suites[i] = TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
		}
	}
	t.config.CipherSuites = suites
}

// withoutSessionIDs leaves only the first connection of tests that resume it by session id although
// that is not what they are about. Their names say so.
func withoutSessionIDs(t *testCase) {
	if t.resumeSession && strings.HasPrefix(t.name, "Basic-Client-NoTicket-") {
		t.resumeSession = false
		t.name += "-FirstConnection"
	}
}
