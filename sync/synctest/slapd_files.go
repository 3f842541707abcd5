package synctest

// confTemplate has the access rules that package openldap documents. The files of Debian's slapd
// package carry the schemas; the OTP schema is inside the module.
const confTemplate = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
pidfile "{{.Dir}}/slapd.pid"
TLSCertificateFile "{{.CAFile}}"
TLSCertificateKeyFile "{{.Dir}}/key.pem"
modulepath /usr/lib/ldap
moduleload back_mdb.la
moduleload otp.la

database mdb
suffix "{{.BaseDN}}"
rootdn "{{.AdminDN}}"
rootpw {{hash .AdminPassword}}
directory "{{.Dir}}/db"
maxsize 67108864
dbnosync
index objectClass,oathHOTPToken eq

access to attrs=oathSecret
  by dn.exact="{{.BindDN}}" =wc
  by * none
access to attrs=userPassword
  by anonymous auth
  by * none
access to dn.subtree="ou=tokens,{{.BaseDN}}"
  by dn.exact="{{.BindDN}}" write
  by * none
access to dn.subtree="ou=people,{{.BaseDN}}" attrs=objectClass,oathHOTPToken
  by dn.exact="{{.BindDN}}" write
  by * read
access to *
  by * read

overlay otp
`

const ldifTemplate = `dn: {{.BaseDN}}
objectClass: dcObject
objectClass: organization
o: example
dc: example

dn: {{.BindDN}}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {{hash .Password}}

dn: ou=people,{{.BaseDN}}
objectClass: organizationalUnit

dn: ou=tokens,{{.BaseDN}}
objectClass: organizationalUnit

dn: cn=hotp6,ou=tokens,{{.BaseDN}}
objectClass: device
objectClass: oathHOTPParams
oathOTPLength: 6
oathHMACAlgorithm: 1.2.840.113549.2.7
oathHOTPLookAhead: 10

dn: cn=hotp8,ou=tokens,{{.BaseDN}}
objectClass: device
objectClass: oathHOTPParams
oathOTPLength: 8
oathHMACAlgorithm: 1.2.840.113549.2.7
oathHOTPLookAhead: 10
{{range users}}
dn: {{dn .}}
objectClass: inetOrgPerson
cn: {{.}}
sn: {{.}}
userPassword: {{hash (password .)}}
{{end}}`
