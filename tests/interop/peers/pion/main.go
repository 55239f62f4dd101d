// Echo over DTLS 1.2 with pion; ../peer.h has the convention.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pion/dtls/v2"
)

const (
	resendInterval  = 300 * time.Millisecond
	timeoutDefaultS = 10
	lineBytesMax    = 16384
	exitUsage       = 64
)

var suites = map[string]dtls.CipherSuiteID{
	"ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
}

func fail(format string, arguments ...interface{}) {
	fmt.Fprintf(os.Stderr, "error: "+format+"\n", arguments...)
	os.Exit(1)
}

func number(name string, otherwise int) int {
	if text, there := os.LookupEnv(name); there {
		value, err := strconv.Atoi(text)
		if err != nil {
			fail("%s: %v", name, err)
		}
		return value
	}
	return otherwise
}

func unsupported(wanted bool, name string) {
	if wanted {
		fmt.Fprintf(os.Stderr, "error: %s is set, which this library does not have\n", name)
		os.Exit(exitUsage)
	}
}

func readCertificate(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		fail("%v", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		fail("%s has no certificate in PEM", path)
	}
	return block.Bytes
}

func configuration(certificate, key string) *dtls.Config {
	_, cid := os.LookupEnv("CID")
	unsupported(cid, "CID")
	unsupported(number("RESUME", 0) == 1, "RESUME")
	unsupported(number("RENEGOTIATION_INFO", 1) == 0, "RENEGOTIATION_INFO=0")
	identity, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		fail("the identity is not usable: %v", err)
	}
	config := &dtls.Config{
		Certificates:         []tls.Certificate{identity},
		ExtendedMasterSecret: dtls.RequireExtendedMasterSecret,
		ClientAuth:           dtls.RequireAnyClientCert,
		InsecureSkipVerify:   true,
		MTU:                  number("MTU", 0),
		ConnectContextMaker: func() (context.Context, func()) {
			return context.WithCancel(context.Background())
		},
	}
	if number("EMS", 1) == 0 {
		config.ExtendedMasterSecret = dtls.DisableExtendedMasterSecret
	}
	if path := os.Getenv("PEER_CERT"); path != "" {
		pinned := readCertificate(path)
		config.VerifyPeerCertificate = func(certificates [][]byte, _ [][]*x509.Certificate) error {
			if len(certificates) == 0 || !bytes.Equal(certificates[0], pinned) {
				return errors.New("the peer's certificate is not the one in PEER_CERT")
			}
			return nil
		}
	}
	for _, id := range suites {
		config.CipherSuites = append(config.CipherSuites, id)
	}
	if name := os.Getenv("SUITE"); name != "" {
		id, known := suites[name]
		unsupported(!known, "SUITE="+name)
		config.CipherSuites = []dtls.CipherSuiteID{id}
	}
	if path := os.Getenv("KEYLOG"); path != "" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			fail("%v", err)
		}
		config.KeyLogWriter = file
	}
	return config
}

// It tells no suite that was agreed on: what was allowed is known where SUITE is set.
func report() {
	suite := os.Getenv("SUITE")
	if suite == "" {
		suite = "-"
	}
	fmt.Fprintf(os.Stderr, "PEER version=DTLSv1.2 suite=%s group=- ems=- cid=no resumed=no\n", suite)
}

func client(address string, config *dtls.Config) {
	socket, err := net.Dial("udp", address)
	if err != nil {
		fail("%v", err)
	}
	conn, err := dtls.Client(newFarewell(socket), config)
	if err != nil {
		fail("the handshake failed: %v", err)
	}
	report()
	input := bufio.NewReaderSize(os.Stdin, lineBytesMax)
	echo := make([]byte, lineBytesMax)
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			break
		}
		for answered := false; !answered; {
			if _, err := conn.Write(line); err != nil {
				fail("cannot write: %v", err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(resendInterval))
			for !answered {
				length, err := conn.Read(echo)
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					break
				}
				if err != nil {
					fail("cannot read: %v", err)
				}
				answered = bytes.Equal(echo[:length], line)
			}
		}
		os.Stdout.Write(line)
	}
	if err := conn.Close(); err != nil {
		fail("cannot close: %v", err)
	}
}

// farewell is a socket that is closed only once an alert has left: Close of a dtls.Conn closes the
// socket in one goroutine while another is about to say goodbye.
type farewell struct {
	net.Conn
	once sync.Once
	said chan struct{}
}

func newFarewell(conn net.Conn) *farewell { return &farewell{Conn: conn, said: make(chan struct{})} }

func (s *farewell) Write(b []byte) (int, error) {
	length, err := s.Conn.Write(b)
	const alert = 21
	if len(b) > 0 && b[0] == alert {
		s.once.Do(func() { close(s.said) })
	}
	return length, err
}

func (s *farewell) Close() error {
	select {
	case <-s.said:
	case <-time.After(time.Second):
	}
	return s.Conn.Close()
}

// firstClient is a socket that takes the first address that sends something as its only peer.
type firstClient struct {
	*net.UDPConn
	client net.Addr
}

func (s *firstClient) Read(b []byte) (int, error) {
	for {
		length, from, err := s.UDPConn.ReadFrom(b)
		if err != nil {
			return 0, err
		}
		if s.client == nil {
			s.client = from
		}
		if from.String() == s.client.String() {
			return length, nil
		}
	}
}

func (s *firstClient) Write(b []byte) (int, error) { return s.UDPConn.WriteTo(b, s.client) }

func (s *firstClient) RemoteAddr() net.Addr { return s.client }

func server(port string, config *dtls.Config) {
	address, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+port)
	if err != nil {
		fail("%v", err)
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		fail("cannot listen: %v", err)
	}
	fmt.Fprintf(os.Stderr, "listening on %v\n", socket.LocalAddr())
	fmt.Println("READY")
	conn, err := dtls.Server(newFarewell(&firstClient{UDPConn: socket}), config)
	if err != nil {
		fail("the handshake failed: %v", err)
	}
	report()
	message := make([]byte, lineBytesMax)
	for {
		length, err := conn.Read(message)
		if err != nil {
			break
		}
		if _, err := conn.Write(message[:length]); err != nil {
			fail("cannot write: %v", err)
		}
	}
	_ = conn.Close()
}

func main() {
	arguments := os.Args[1:]
	timeout := time.Duration(number("TIMEOUT", timeoutDefaultS)) * time.Second
	time.AfterFunc(timeout, func() { fail("TIMEOUT passed") })
	switch {
	case len(arguments) == 1 && arguments[0] == "version":
		fmt.Println("pion " + version)
	case len(arguments) == 5 && arguments[0] == "client":
		client(net.JoinHostPort(arguments[1], arguments[2]), configuration(arguments[3], arguments[4]))
	case len(arguments) == 4 && arguments[0] == "server":
		server(arguments[1], configuration(arguments[2], arguments[3]))
	default:
		fmt.Fprintln(os.Stderr, "usage: pion client HOST PORT CERT KEY\n       pion server PORT CERT KEY\n       pion version")
		os.Exit(exitUsage)
	}
}

// version is set when this is linked.
var version = "of unknown version"
