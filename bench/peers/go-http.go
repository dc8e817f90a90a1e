// The example of net/http's Server.Shutdown, with a deadline: go build -o server go-http.go
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func duration(r *http.Request) time.Duration {
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	return time.Duration(ms) * time.Millisecond
}

// Writes first, sleeps, writes last.
func slowly(first string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, first)
		w.(http.Flusher).Flush()
		time.Sleep(duration(r))
		io.WriteString(w, "last\n")
	}
}

func main() {
	large := bytes.Repeat([]byte("x"), 20*1024*1024)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, "hello\n")
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(duration(r))
		io.WriteString(w, "slow\n")
	})
	mux.HandleFunc("/stream", slowly("first\n"))
	mux.HandleFunc("/block", slowly("first\n"))
	mux.HandleFunc("/large", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(large)))
		w.Write(large)
	})
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			fmt.Fprintf(w, "%d\n", n)
		}
	})

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if ms, err := strconv.Atoi(os.Getenv("START_DELAY_MS")); err == nil {
		fmt.Println("starting")
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}

	server := &http.Server{Addr: ":" + os.Getenv("PORT"), Handler: mux}
	closed := make(chan error)
	go func() {
		<-signals
		seconds, _ := strconv.Atoi(os.Getenv("SHUTDOWN_TIMEOUT"))
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
		defer cancel()
		closed <- server.Shutdown(ctx)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	if err := <-closed; err != nil {
		log.Fatal(err)
	}
}
