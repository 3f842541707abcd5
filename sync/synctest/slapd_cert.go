package synctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificate is how good a server's certificate is.
type Certificate int

// Certificates.
const (
	Valid     Certificate = iota
	Expired               // an hour ago
	OtherHost             // signed by the right CA, for another server
	UnknownCA             // signed by one of the same name that nobody knows
)

const clientName = "provisioner"

// authority signs certificates; its key stays in memory.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// newAuthority makes a throw-away CA.
func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "CA under test"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{key: key, cert: cert}
	if a.cert.Raw, err = a.sign(cert, &key.PublicKey); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *authority) sign(cert *x509.Certificate, key *ecdsa.PublicKey) ([]byte, error) {
	var err error
	if cert.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, cert, a.cert, key, a.key)
}

// issue writes NAME.pem and NAME-key.pem for a new key.
func (a *authority) issue(name string, cert *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := a.sign(cert, &key.PublicKey)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(name+".pem", "CERTIFICATE", der); err != nil {
		return err
	}
	return writePEM(name+"-key.pem", "PRIVATE KEY", private)
}

// publish writes what clients need: the CA's certificate and one for the provisioner.
func (a *authority) publish(s *Slapd) error {
	name := filepath.Join(s.dir, "client")
	s.CAFile, s.ClientCert, s.ClientKey = filepath.Join(s.dir, "ca.pem"), name+".pem", name+"-key.pem"
	if err := writePEM(s.CAFile, "CERTIFICATE", a.cert.Raw); err != nil {
		return err
	}
	return a.issue(name, leaf(clientName, x509.ExtKeyUsageClientAuth))
}

func (s *Slapd) writeCertificate(kind Certificate) error {
	a, cert := s.ca, leaf("slapd under test", x509.ExtKeyUsageServerAuth)
	cert.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	if s.site != nil {
		cert.IPAddresses = []net.IP{s.site.address}
	}
	switch kind {
	case Valid:
	case Expired:
		cert.NotBefore, cert.NotAfter = time.Now().Add(-24*time.Hour), time.Now().Add(-time.Hour)
	case OtherHost:
		cert.IPAddresses, cert.DNSNames = nil, []string{"ldap.example.net"}
	case UnknownCA:
		var err error
		if a, err = newAuthority(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%d is no kind of certificate", kind)
	}
	return a.issue(filepath.Join(s.dir, "server"), cert)
}

// Recertify restarts the server with a new certificate.
func (s *Slapd) Recertify(kind Certificate) error {
	s.Stop()
	if err := s.writeCertificate(kind); err != nil {
		return err
	}
	return s.Start()
}

func leaf(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
