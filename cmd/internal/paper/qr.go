package paper

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"

	"github.com/boombuler/barcode/qr"
)

// quiet is the white edge that scanners need, in modules (ISO/IEC 18004, section 9.1).
const quiet = 4

// code is a QR code as an SVG element with that class. Text is encoded as bytes; what says what the code is for people who do not
// see it. It is drawn in black whatever the page's colours.
func code(text, class, what string) (template.HTML, error) {
	symbol, err := qr.Encode(text, qr.M, qr.Unicode)
	if err != nil {
		return "", fmt.Errorf("cannot make a QR code of %d bytes: %w", len(text), err)
	}
	size := symbol.Bounds().Dx()
	black := func(x, y int) bool { return x < size && symbol.At(x, y).(color.Gray16).Y == 0 }
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg class="%s" viewBox="0 0 %d %d" shape-rendering="crispEdges" role="img" aria-label="%s"><path fill="none" stroke="#000" d="`,
		template.HTMLEscapeString(class), size+2*quiet, size+2*quiet, template.HTMLEscapeString(what))
	for y := range size {
		fmt.Fprintf(&b, "M%d %d.5", quiet, y+quiet)
		for x, gap := 0, 0; x < size; {
			n := 1
			for x+n < size && black(x+n, y) == black(x, y) {
				n++
			}
			if black(x, y) {
				if gap > 0 {
					fmt.Fprintf(&b, "m%d 0", gap)
				}
				fmt.Fprintf(&b, "h%d", n)
				gap = 0
			} else {
				gap = n
			}
			x += n
		}
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String()), nil
}
