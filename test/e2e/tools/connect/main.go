// Command connect is the API server's way to pods, Services and kubelets: the hub, where the API server runs, is no node
// and has no network plugin, so it asks this program, which runs on a node, by HTTP CONNECT over a Unix socket (what
// Konnectivity does for others).
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: connect SOCKET")
	}
	if err := os.Remove(os.Args[1]); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal(err)
	}
	l, err := net.Listen("unix", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, http.HandlerFunc(connect)))
}

func connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	to, err := net.DialTimeout("tcp", r.Host, 10*time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		log.Print(err)
		return
	}
	defer from.Close()
	fmt.Fprint(from, "HTTP/1.1 200 Connection established\r\n\r\n")
	done := make(chan struct{}, 2)
	go pass(to, buffered, done)
	go pass(from, to, done)
	<-done
}

func pass(to io.Writer, from io.Reader, done chan<- struct{}) {
	_, _ = io.Copy(to, from) // ends when either side does: that is no error here
	done <- struct{}{}
}
