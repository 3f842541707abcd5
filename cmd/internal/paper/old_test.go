package paper

import (
	"os"
	"testing"
)

// Receipts outlive the program that printed them: this one was printed by the first that could, and verifies for ever.
func TestOldReceiptVerifies(t *testing.T) {
	key := testKey(t)
	page, err := os.ReadFile("testdata/receipt-v1.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{page, []byte(statementOf(t, page))} {
		p, err := verify(text, &key)
		if err != nil || p.Number != 17 || p.From != "alice" || p.To != "bob" || p.Proof.OldWindow != 1000 || !p.Time.Equal(testTime) {
			t.Errorf("%+v, %v", p, err)
		}
	}
}
