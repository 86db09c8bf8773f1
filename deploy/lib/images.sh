# shellcheck shell=bash
# The images of the compose stack: their base, from source or from built programs, going over to new ones and back.

readonly BASE_IMAGE=debian:bookworm-slim

# From source in a Rust image. Where none can be had, or RUST_IMAGE is "none", the programs are built here and packed.
docker_build() {
    need_docker
    local rust=${RUST_IMAGE:-rust:1.95-slim-bookworm}
    if [ "$rust" != none ] && docker_has_image "$rust"; then
        docker_base_image
        say "building the images from source with $rust"
        compose build --build-arg "RUST_IMAGE=$rust"
        return
    fi
    say "packing programs that are built here: no image $rust"
    native_build
    docker_pack
}

# There already, or from a registry.
docker_has_image() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1"; }

# The one base of all images: there already, from a registry, or made from Debian's packages.
docker_base_image() {
    ! docker_has_image "$BASE_IMAGE" || return 0
    say "no registry gives $BASE_IMAGE: making it from Debian's packages"
    install_missing "debootstrap|debootstrap|makes the base image where no registry is reached"
    local root ended=0
    root=$(mktemp -d)
    as_root debootstrap --variant=minbase bookworm "$root" >/dev/null || ended=$?
    [ "$ended" != 0 ] || as_root tar -C "$root" -c . | docker import - "$BASE_IMAGE" >/dev/null || ended=$?
    as_root rm -rf -- "$root"
    [ "$ended" = 0 ] || fail "the base image $BASE_IMAGE can be neither pulled nor made"
}

# Images from the built programs.
docker_pack() {
    local staged="$HOME_DIR/deploy/docker/programs" program ended=0
    mkdir -p "$staged"
    for program in pooler balancer web stack; do
        cp -- "$(target_dir)/release/$program" "$staged/$program"
    done
    docker_base_image
    ARENA_DOCKERFILE=deploy/docker/Dockerfile.binaries compose build || ended=$?
    rm -rf -- "$staged"
    return "$ended"
}

readonly OUR_IMAGES="arena-web arena-pooler arena-balancer"

docker_tag_all() { # from, to
    local image
    for image in $OUR_IMAGES; do
        ! docker image inspect "$image:$1" >/dev/null 2>&1 || docker tag "$image:$1" "$image:$2"
    done
}

docker_images_in_use() {
    local image
    for image in $OUR_IMAGES; do docker image inspect -f '{{.Id}}' "$image:current" 2>/dev/null || true; done
}

# Images with which not all parts were healthy are none to go back to.
docker_is_untried() { [ "$(docker_images_in_use)" = "$(cat "$DOCKER_DIR/untried" 2>/dev/null)" ]; }
docker_has_proven_good() { rm -f -- "$DOCKER_DIR/untried"; }

# The last good images are kept under the tag "previous"; replicas go over one at a time.
docker_upgrade() {
    local kept=previous
    ! docker_is_untried || kept=undone
    docker_tag_all current before
    docker_build
    docker_tag_all before "$kept"
    docker_images_in_use >"$DOCKER_DIR/untried"
    docker_roll
}

docker_rollback() {
    local image
    for image in $OUR_IMAGES; do
        docker image inspect "$image:previous" >/dev/null 2>&1 || fail "there is no earlier $image image to go back to"
    done
    docker_tag_all current undone
    docker_tag_all previous current
    docker_tag_all undone previous
    docker_roll
}

docker_roll() {
    local service proxies=(pooler balancer)
    [ "$(docker_mode)" != direct ] || proxies=(balancer)
    docker_migrate
    for service in $(docker_replicas) "${proxies[@]}"; do
        compose up -d --no-deps "$service"
        docker_wait_healthy "$service"
        docker_reload_balancer
    done
    docker_has_proven_good
}
