package paper

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"
	"unicode"

	"tokendesk/vault/audit"
)

// Format is how a report is written.
type Format string

// Formats.
const (
	CSV  Format = "csv"  // RFC 4180, with a line of headings; cells are harmless in spreadsheets
	HTML Format = "html" // for people, and for print
	JSON Format = "json" // one object a line
)

// Column is one of a report.
type Column struct {
	Key     string // in CSV and JSON
	Heading string // in HTML
	Shape   Shape  // in HTML
}

// Shape is how a column is set in HTML.
type Shape string

// Shapes. The others are wrapped between words.
const (
	Short Shape = "short" // in one line, such as times
	Name  Shape = "name"  // in one line, in letters of one width
	Path  Shape = "path"  // in letters of one width, wrapped anywhere
)

// Heading is what stands above a report.
type Heading struct {
	Title   string
	About   string // which rows it has
	Desk    Imprint
	Printed time.Time // in the zone that all times of it are shown in
	Basis   string    // the state that it tells of
	Columns []Column
	Version string // in JSON: of the objects
}

// Report is a table that is written row by row. It holds none of them.
type Report struct {
	format  Format
	heading Heading
	out     *bufio.Writer
	csv     *csv.Writer
	row     []string
	line    bytes.Buffer
	rows    int
}

// maxCell is above the longest text of a report in bytes: a reason of the audit trail.
const maxCell = audit.MaxReason

// NewReport begins a report. The caller closes w.
func NewReport(w io.Writer, f Format, h Heading) (*Report, error) {
	r := &Report{format: f, heading: h, out: bufio.NewWriter(w), row: make([]string, len(h.Columns))}
	switch f {
	case CSV:
		r.csv = csv.NewWriter(r.out)
		for i, c := range h.Columns {
			r.row[i] = c.Key
		}
		return r, r.csv.Write(r.row)
	case HTML:
		return r, templates.ExecuteTemplate(r.out, "report.html", r.page())
	case JSON:
		return r, nil
	}
	return nil, fmt.Errorf("there is no report as %q: there is csv, html and json", string(f))
}

// page is what the template gets.
func (r *Report) page() map[string]any {
	return map[string]any{"H": r.heading, "Desk": r.heading.Desk.name(), "Printed": moment(r.heading.Printed)}
}

// Row writes a row: as many cells as there are columns.
func (r *Report) Row(cells ...string) error {
	if len(cells) != len(r.heading.Columns) {
		return fmt.Errorf("a row of %d cells in a report with %d columns", len(cells), len(r.heading.Columns))
	}
	r.rows++
	for i, c := range cells {
		r.row[i] = audit.Plain(c, maxCell)
	}
	switch r.format {
	case CSV:
		for i, c := range r.row {
			r.row[i] = NoFormula(c)
		}
		return r.csv.Write(r.row)
	case JSON:
		return r.object()
	}
	return r.tableRow()
}

// NoFormula keeps spreadsheets from computing a cell: what they would take for a formula begins with an apostrophe, which makes
// it a text. The last four are the same signs in the width of Chinese letters, which some take as well.
func NoFormula(cell string) string {
	start := strings.TrimLeftFunc(cell, func(r rune) bool { return unicode.IsSpace(r) || r == '\uFFFD' || r == '\uFEFF' })
	for _, sign := range []string{"=", "+", "-", "@", "＝", "＋", "－", "＠"} {
		if strings.HasPrefix(start, sign) {
			return "'" + cell
		}
	}
	return cell
}

func (r *Report) tableRow() error {
	r.line.Reset()
	r.line.WriteString("<tr>")
	for i, c := range r.row {
		r.line.WriteString("<td")
		if shape := r.heading.Columns[i].Shape; shape != "" {
			fmt.Fprintf(&r.line, ` class="%s"`, shape)
		}
		r.line.WriteString(">")
		template.HTMLEscape(&r.line, []byte(c))
		r.line.WriteString("</td>")
	}
	r.line.WriteString("</tr>\n")
	_, err := r.out.Write(r.line.Bytes())
	return err
}

func (r *Report) object() error {
	version, err := json.Marshal(r.heading.Version)
	if err != nil {
		return err
	}
	r.line.Reset()
	fmt.Fprintf(&r.line, `{"api_version":%s`, version)
	for i, c := range r.row {
		value, err := json.Marshal(c)
		if err != nil {
			return err
		}
		fmt.Fprintf(&r.line, `,%q:%s`, r.heading.Columns[i].Key, value)
	}
	r.line.WriteString("}\n")
	_, err = r.out.Write(r.line.Bytes())
	return err
}

// Close ends the report. Without it nothing was written for sure.
func (r *Report) Close() error {
	switch r.format {
	case CSV:
		r.csv.Flush()
		if err := r.csv.Error(); err != nil {
			return err
		}
	case HTML:
		if err := templates.ExecuteTemplate(r.out, "report-end.html", map[string]any{"Rows": r.rows, "Count": thousands(r.rows), "Columns": len(r.row)}); err != nil {
			return err
		}
	}
	return r.out.Flush()
}

// thousands writes a number in groups of three digits.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
