# shellcheck shell=bash
# The images of the compose stack: their base, from source or from built programs, going over to new ones and back.

readonly BASE_IMAGE=debian:bookworm-slim

# From source in a Rust image where one is named; otherwise the programs are built here and packed.
docker_build() {
    need_docker
    if [ -n "${RUST_IMAGE:-}" ]; then
        say "building the images from source with $RUST_IMAGE"
        compose build --build-arg "RUST_IMAGE=$RUST_IMAGE"
        return
    fi
    native_build
    docker_pack
}

# The one base of all images: there already, from a registry, or made from Debian's packages.
docker_base_image() {
    ! docker image inspect "$BASE_IMAGE" >/dev/null 2>&1 || return 0
    ! docker pull --quiet "$BASE_IMAGE" || return 0
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

# The images in use are kept under the tag "previous"; replicas go over one at a time.
docker_upgrade() {
    local image
    for image in arena-web arena-pooler arena-balancer; do
        ! docker image inspect "$image:current" >/dev/null 2>&1 || docker tag "$image:current" "$image:previous"
    done
    docker_build
    docker_roll
}

docker_rollback() {
    local image
    for image in arena-web arena-pooler arena-balancer; do
        docker image inspect "$image:previous" >/dev/null 2>&1 || fail "there is no earlier $image image to go back to"
    done
    for image in arena-web arena-pooler arena-balancer; do
        docker tag "$image:current" "$image:undone"
        docker tag "$image:previous" "$image:current"
        docker tag "$image:undone" "$image:previous"
    done
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
}
