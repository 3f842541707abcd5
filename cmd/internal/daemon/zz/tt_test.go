package zz
import ("testing";"bytes";"errors";. "tokendesk/cmd/internal/daemon";"github.com/pelletier/go-toml/v2")
func TestX(t *testing.T){
 for _, s := range []string{
  "a = 1\n[vault]\nb = 2\nc.d = 3\n[foo]\nx=1\n[central.openldap]\npw = 'hunter2'\n",
  "vault = 3","[vault]\npath = 3","[devices]\nusb = 'hunter2'","[devices]\nusb = hunter2","[devices]\nusb = true2","[devices]\nusb = 1e999999","[devices]\nusb = 99999999999999999999",
  "[central]\nretry_min = 5","[central]\nretry_min = 'hunter2'","[central]\nretry_min = 1.5","[vault]\npath='a'\npath='hunter2'","[vault]\n[vault]","[vault\n","hunter2\n","x = hunter2","[central.openldap]\nparams = 'hunter2'","[central.openldap]\nparams = {6=7}","[central.openldap]\nparams = {6='a', 6='b'}",
  "[vault]\npath='hunter2", "[vault]\npath=\"hunter2\\q\"","[vault]\npath=\"\\uD800\"", "[[vault]]\npath='x'", "vault = []","[devices]\nusb=2020-13-45","[vault]\npath=0x","\"hunter\\n2\" = 1","[vault]\npath = '''\nhunter2\n","[central]\nopenldap='hunter2'", "central.openldap.start_tls='x'", "[vault]\nPATH='/x'","\x00","\xff=1","[vault]\npath=2020-01-01", "[vault]\npath='\xff'","vault.seal.x=1", "[vault.seal]\nx=1","[devices]\nusb=hunter2=3", "[devices]\nusb=+hunter2", "[devices]\nusb=0hunter", "[devices]\nusb=nonsense","[devices]\nusb=1.5e400", "[central.openldap.timeout]\nx=1", "[devices]\nusb=1_"} {
  var c Config
  err := toml.NewDecoder(bytes.NewReader([]byte(s))).DisallowUnknownFields().Decode(&c)
  var d *toml.DecodeError; var st *toml.StrictMissingError
  if errors.As(err,&st) { for _, e := range st.Errors { l,cc := e.Position(); t.Logf("%q STRICT %d:%d %q", s,l,cc,e.Key()) }; continue }
  if errors.As(err,&d) { l,cc := d.Position(); t.Logf("%q DEC %d:%d %q %s", s,l,cc,d.Key(),d.Error()); continue}
  t.Logf("%q OTHER %T %v", s, err, err)
 }
}
