# Everything a newcomer types: `make demo`, `make test`. Both set themselves up first.
#
#   make demo [VIDEO=file BOX=x0,y0,x1,y1 AT=seconds SECONDS_MAX=n]   track something in a real video
#   make demo QUERY="the moving thing on the left" [LLM=url LLM_MODEL=name]   find it by words first
#   make test       formatting, lints, unit, property, pipeline and golden tests
#   make bench      stage and end-to-end measurements, written to benches/results/
#   make soak       faults for minutes, or for hours: make soak [HOURS=n]
#   make figures    everything the README says of performance, measured anew
#   make parity     against the published PyTorch implementation (installs it, several GB)
#   make eval       J and F on DAVIS sequences: make eval DAVIS=dir [PROMPT=mask|box|point]
#   make check-tensorrt   whether NVIDIA's parser and builder take every graph, without a GPU
#   make gpu-bench  an NVIDIA GPU measured beside PyTorch: make gpu-bench [GPU_OUT=dir GPU_BENCH="--models tiny@1024"]
#   make gpu-bench-pack  what that needs, in a folder for a machine that can fetch nothing: [GPU_ARCH=90]
#   make plugin     libgstsightline.so alone, in target/gst

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE := $(CURDIR)/.cache
DATA_HOME := $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/sightline
ORT_VERSION := 1.31.1
ORT_LIB := $(DATA_HOME)/lib/libonnxruntime.so.$(ORT_VERSION)
export SIGHTLINE_ONNXRUNTIME ?= $(ORT_LIB)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# What to build against, what pipelines need, H.264 both ways; the last one for the RTSP camera of the tests.
PACKAGES := build-essential pkg-config ca-certificates python3 python3-pip python3-venv \
  libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev \
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
  gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly gstreamer1.0-libav \
  libgstrtspserver-1.0-dev

SIGHTLINE := target/release/sightline
PLUGIN := target/gst/libgstsightline.so

.PHONY: help setup packages build plugin demo test lint soak parity bench figures eval check-tensorrt gpu-bench-bin gpu-bench gpu-bench-pack clean

help:
	@sed -n '3,15s/^# \{0,3\}//p' Makefile

## Set-up

setup: packages $(ORT_LIB)

# Asks for nothing when everything is there.
packages:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  echo "installing system packages:" $$missing; \
	  $(SUDO) apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@command -v cargo >/dev/null || { echo "cargo: expected Rust 1.92 or later on PATH, got none; see https://rustup.rs"; exit 1; }

# The shared library out of the published wheel; no Python is needed to use it.
$(ORT_LIB): | packages
	@mkdir -p $(CACHE)/wheels $(dir $@)
	@echo "fetching ONNX Runtime $(ORT_VERSION)"
	@python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
	  --python-version 3.12 --implementation cp --abi cp312 \
	  --platform manylinux_2_27_$(shell uname -m) --platform manylinux_2_28_$(shell uname -m) \
	  -d $(CACHE)/wheels onnxruntime==$(ORT_VERSION)
	@python3 -c "import glob, shutil, zipfile; \
	z = zipfile.ZipFile(glob.glob('$(CACHE)/wheels/onnxruntime-$(ORT_VERSION)-*.whl')[0]); \
	n = next(n for n in z.namelist() if n.endswith('libonnxruntime.so.$(ORT_VERSION)')); \
	shutil.copyfileobj(z.open(n), open('$@.part', 'wb'))"
	@mv $@.part $@

# NVIDIA's compiler for our kernels, out of its wheel: the tests compile them for three GPUs without having one. Where it
# cannot be fetched the test says so and passes.
NVRTC_VERSION := 13.0.88
NVRTC_SHA256 := ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
NVRTC_LIB := $(CACHE)/nvrtc/libnvrtc.so.13
$(NVRTC_LIB):
	@mkdir -p $(CACHE)/wheels $(dir $@)
	@echo "fetching NVRTC $(NVRTC_VERSION) (90 MB, once)"
	@python3 -m pip download -q --disable-pip-version-check --retries 1 --no-deps --only-binary=:all: \
	  --platform manylinux_2_12_x86_64 -d $(CACHE)/wheels nvidia-cuda-nvrtc==$(NVRTC_VERSION)
	@echo "$(NVRTC_SHA256)  $$(ls $(CACHE)/wheels/nvidia_cuda_nvrtc-$(NVRTC_VERSION)-*.whl)" | sha256sum --check --quiet
	@cd $(dir $@) && python3 -c "import glob, os, zipfile; \
	z = zipfile.ZipFile(glob.glob('$(CACHE)/wheels/nvidia_cuda_nvrtc-$(NVRTC_VERSION)-*.whl')[0]); \
	[open(os.path.basename(n), 'wb').write(z.read(n)) for n in sorted(z.namelist()) if n.endswith(('libnvrtc-builtins.so.13.0', 'libnvrtc.so.13'))]"

.PHONY: nvrtc
nvrtc:
	@[ "$$(uname -m)" != x86_64 ] || $(MAKE) --no-print-directory $(NVRTC_LIB) || echo "NVRTC could not be fetched: kernels are not compiled by the tests"

# What the tests of engines/tensorrt need of TensorRT: headers, and NVIDIA's lean libraries. Where they cannot be fetched the
# tests say so and pass.
TENSORRT := $(CACHE)/tensorrt
TENSORRT_ENV := TENSORRT_INCLUDE_DIR_10=$(TENSORRT)/include-10 TENSORRT_INCLUDE_DIR_11=$(TENSORRT)/include-11
.PHONY: tensorrt tensorrt-libs test-tensorrt
tensorrt: packages
	@python3 engines/tensorrt/tests/fetch.py $(TENSORRT) headers || true

tensorrt-libs: packages
	@python3 engines/tensorrt/tests/fetch.py $(TENSORRT) libs || true

test-tensorrt: tensorrt tensorrt-libs
	@if [ -d $(TENSORRT)/include-10 ] && [ -d $(TENSORRT)/include-11 ]; then \
	  set -x; export $(TENSORRT_ENV); \
	  cargo clippy --locked -q -p sightline-engine-registry -p sightline-engine-tensorrt --all-targets \
	    --features sightline-engine-registry/tensorrt,sightline-engine-tensorrt/tensorrt -- -D warnings; \
	  cargo test --locked -q -p sightline-engine-tensorrt --features tensorrt; \
	else echo "SKIPPED: engines/tensorrt with its feature: no headers of TensorRT" >&2; fi

## Build

build: setup
	cargo build --release --locked -q -p sightline -p gst-plugin-sightline

plugin: setup
	cargo build --release --locked -q -p gst-plugin-sightline
	@mkdir -p $(dir $(PLUGIN)) && cp target/release/libgstsightline.so $(PLUGIN)
	@echo "export GST_PLUGIN_PATH=$(CURDIR)/target/gst"

## Run

# vtest.avi is a surveillance feed that ships with OpenCV; the package is unpacked here, not installed.
DEMO_CLIP := $(CACHE)/vtest.avi
VIDEO ?= $(DEMO_CLIP)
OUT ?= out
# A walker, six seconds in.
DEMO_BOX := 613,232,655,342
# Without a box, the default clip is followed for 13 s: then the walker leaves the picture.
DEMO_WORDS = --query "$(QUERY)" $(if $(LLM),--llm $(LLM) --llm-model $(LLM_MODEL)) --max-seconds $(or $(SECONDS_MAX),13)
DEMO_PROMPT = $(if $(QUERY),$(DEMO_WORDS),$(DEMO_SHOWN))
DEMO_SHOWN = $(if $(BOX),--box $(BOX),$(if $(POINT),--point $(POINT),$(if $(filter $(DEMO_CLIP),$(VIDEO)),--box $(DEMO_BOX) --at 6 --max-seconds $(or $(SECONDS_MAX),13),)))

$(DEMO_CLIP):
	@mkdir -p $(CACHE)/opencv-doc
	@echo "fetching the demo clip (package opencv-doc, 96 MB, once)"
	@cd $(CACHE)/opencv-doc && { apt-get download -qq opencv-doc 2>/dev/null || { $(SUDO) apt-get update -qq && apt-get download -qq opencv-doc 2>/dev/null; }; }
	@cd $(CACHE)/opencv-doc && dpkg-deb --fsys-tarfile opencv-doc_*.deb | tar -x --wildcards '*/vtest.avi' \
	  && mv $$(find . -name vtest.avi) $@ && rm -rf $(CACHE)/opencv-doc

demo: build $(if $(filter $(DEMO_CLIP),$(VIDEO)),$(DEMO_CLIP))
	@mkdir -p $(OUT)
	@$(SIGHTLINE) run --input "$(VIDEO)" $(DEMO_PROMPT) $(if $(AT),--at $(AT)) $(if $(and $(SECONDS_MAX),$(if $(or $(QUERY),$(filter $(DEMO_CLIP),$(VIDEO))),,1)),--max-seconds $(SECONDS_MAX)) \
	  --output $(OUT)/demo.mp4 --jsonl $(OUT)/demo.jsonl --contact-sheet $(OUT)/demo.png

DAVIS ?= ../shared/data/davis
PROMPT ?= mask
eval: build
	$(SIGHTLINE) eval davis --data $(DAVIS) --model nano --prompt $(PROMPT) --json $(OUT)/davis-$(PROMPT).json

## Check

# The clip the speed figures are quoted for, if it is there; else any (with BOX=), else a drawn one.
BENCH_CLIP := $(wildcard ../shared/data/clips/01_dog.mp4)
BENCH_VIDEO = $(if $(filter-out $(DEMO_CLIP),$(VIDEO)),$(VIDEO),$(or $(BENCH_CLIP),ball))
BENCH_CLIP_BOX := 460,400,725,565
BENCH_BOX = $(or $(BOX),$(if $(and $(BENCH_CLIP),$(filter $(BENCH_CLIP),$(BENCH_VIDEO))),$(BENCH_CLIP_BOX)))
BENCH_OUT ?= benches/results/$(shell date +%F)-corridor

bench: setup
	@mkdir -p $(BENCH_OUT)
	cargo bench --locked -q -p sightline-benches --bench stages -- --noplot --warm-up-time 0.3 --measurement-time 1 --sample-size 30 720p | tee $(BENCH_OUT)/stages.txt
	cargo run --release --locked -q -p sightline-benches --bin corridor -- --input "$(BENCH_VIDEO)" $(if $(BENCH_BOX),--box $(BENCH_BOX)) --out $(BENCH_OUT)

# DEGRADE="NAME:PROPERTY=VALUE,PROPERTY=VALUE ..." are the streaming runs of what giving way costs; FIGURES="--only latency" and the like.
# nano in place of nano shows what handing over costs; a budget of looks a second stands for a machine that is too slow.
DEGRADE ?= skip-memory:degrade-floor=skip-memory,max-age=0 \
  smaller-being-nano-again:degrade-floor=smaller,smaller-model=nano,degrade=smaller,max-age=0 \
  6-looks:max-fps=6,max-age=0 6-looks-coasting:max-fps=6,degrade-floor=coast,degrade=coast,max-age=0 \
  3-looks:max-fps=3,max-age=0 3-looks-coasting:max-fps=3,degrade-floor=coast,degrade=coast,max-age=0
FIGURES_OUT ?= benches/results/$(shell date +%F)-live
FIGURES ?=
figures: build
	python3 benches/figures.py --out $(FIGURES_OUT) --davis $(DAVIS) $(foreach level,$(DEGRADE),--degrade $(level)) $(FIGURES)

# Twice: as it is shipped, and with what a build may have besides.
ALL := --workspace --features gst-plugin-sightline/nvmm --locked -q
lint: setup
	cargo fmt --all --check
	cargo clippy -p sightline -p gst-plugin-sightline --locked -q -- -D warnings
	cargo clippy $(ALL) --all-targets -- -D warnings

# Built first: tests open the plugin as GStreamer does.
test: lint nvrtc
	cargo build $(ALL) --lib --bins --tests
	cargo test $(ALL)
	@$(MAKE) --no-print-directory test-tensorrt

# Every fault around `sightline serve`, round after round; exit code 1 if anything that must hold does not.
MINUTES ?= $(if $(HOURS),$(shell python3 -c 'print(60 * $(HOURS))'),6)
SOAK_OUT ?= $(OUT)/soak
soak: build
	cargo build --release --locked -q -p sightline-tests --bin rtsp-camera
	cargo build --release --locked -q -p sightline-grounding --example scripted-server
	python3 tests/soak/soak.py --bin target/release --minutes $(MINUTES) --out $(SOAK_OUT)

## Models

VENV := $(CACHE)/export-venv
SEEDS ?= 1
parity: build
	engines/export/setup_venv.sh $(VENV)
	OMP_WAIT_POLICY=passive $(VENV)/bin/python tests/parity/parity.py --sightline $(SIGHTLINE) $(foreach s,$(SEEDS),--seed $(s))

# NVIDIA's own parser and builder on every graph, without a GPU; two wheels of 96 MB beside the exporter's packages.
RTX := $(CACHE)/tensorrt-rtx
RTX_LIST := engines/export/requirements-tensorrt.txt
$(RTX)/.fetched: $(RTX_LIST)
	engines/export/setup_venv.sh $(VENV)
	rm -rf $(RTX)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes -r $(RTX_LIST) --target $(RTX)
	@touch $@

check-tensorrt: $(RTX)/.fetched
	PYTHONPATH=$(RTX) $(VENV)/bin/python engines/export/check_tensorrt.py

## GPU

# ONNX Runtime with its CUDA provider, out of the published wheel: 255 MB, and CUDA's own libraries are not in it.
GPU_WHEEL := $(CACHE)/wheels/onnxruntime_gpu-$(ORT_VERSION)-cp312-cp312-manylinux_2_28_x86_64.whl
GPU_WHEEL_SHA256 := 05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7
ORT_GPU_LIB := $(DATA_HOME)/lib/cuda/libonnxruntime.so.$(ORT_VERSION)
GPU_BENCH_BIN := target/release/gpu-bench
GPU_OUT ?= benches/results/$(shell date +%F)-gpu
GPU_BENCH ?=
GPU_ARCH ?= 90
GPU_PACK ?= $(OUT)/gpu-bench
GPU_PYTHON ?= $(VENV)/bin/python

$(GPU_WHEEL):
	@mkdir -p $(@D)
	@echo "fetching ONNX Runtime $(ORT_VERSION) for CUDA (255 MB, once)"
	@python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
	  --python-version 3.12 --implementation cp --abi cp312 --platform manylinux_2_28_x86_64 \
	  -d $(@D) onnxruntime-gpu==$(ORT_VERSION)
	@echo "$(GPU_WHEEL_SHA256)  $@" | sha256sum --check --quiet || { rm -f $@; exit 1; }

$(ORT_GPU_LIB): $(GPU_WHEEL)
	@mkdir -p $(@D)
	@python3 -c "import shutil, zipfile; \
	z = zipfile.ZipFile('$<'); \
	[shutil.copyfileobj(z.open(n), open('$(@D)/' + n.rsplit('/', 1)[1], 'wb')) \
	 for n in z.namelist() if n.endswith('.so') and 'providers' in n or n.endswith('.so.$(ORT_VERSION)')]"

# What it links is what a machine with nothing but PyTorch has.
gpu-bench-bin: | packages
	cargo build --release --locked -q -p sightline-gpu-bench

gpu-bench: gpu-bench-bin $(ORT_GPU_LIB)
	engines/export/setup_venv.sh $(VENV)
	SIGHTLINE_ONNXRUNTIME=$(ORT_GPU_LIB) $(GPU_PYTHON) benches/gpu/run.py --out $(GPU_OUT) $(GPU_BENCH)

gpu-bench-pack: gpu-bench-bin $(GPU_WHEEL)
	engines/export/setup_venv.sh $(VENV)
	python3 benches/gpu/pack.py --bin $(GPU_BENCH_BIN) --wheel $(GPU_WHEEL) --venv $(VENV) --arch $(GPU_ARCH) --out $(GPU_PACK)

clean:
	cargo clean
	rm -rf $(OUT)
