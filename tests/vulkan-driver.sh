#!/usr/bin/env bash
# Makes sure that the GPU tests have a Vulkan driver, and prints the one they get.
#
#   source tests/vulkan-driver.sh     sets VK_DRIVER_FILES where needed, and MOUE_NEEDS_VULKAN so that no GPU test is skipped in silence
#   bash tests/vulkan-driver.sh       the same, but only tells what to export
#
# A real GPU's driver is taken as it is. Without one it is SwiftShader, the software Vulkan inside Debian's chromium-common. Mesa's lavapipe
# passes the same tests (VK_DRIVER_FILES chooses it). Quick when the driver is there: then apt is not asked.

moue_vulkan_loader() {
    # Not every user's path has it; and a grep that ends at its first match would end ldconfig with a broken pipe.
    PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null | grep 'libvulkan\.so\.1' >/dev/null
}

# A driver of a GPU whose device file exists.
moue_vulkan_hardware() {
    local icd
    for icd in /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json; do
        [ -e "$icd" ] || continue
        case "${icd##*/}" in
            nvidia*) [ -e /dev/nvidiactl ] && { echo "$icd"; return 0; } ;;
            radeon*|amd*|intel*|nouveau*|asahi*|freedreno*|panfrost*|broadcom*) ls /dev/dri/renderD* >/dev/null 2>&1 && { echo "$icd"; return 0; } ;;
        esac
    done
    return 1
}

moue_vulkan_swiftshader() {
    local folder
    for folder in /usr/lib/chromium /usr/lib/chromium-browser /opt/google/chrome "$moue_vulkan_cache/usr/lib/chromium"; do
        [ -e "$folder/libvk_swiftshader.so" ] && [ -e "$folder/vk_swiftshader_icd.json" ] && { echo "$folder/vk_swiftshader_icd.json"; return 0; }
    done
    return 1
}

# Installs packages where this user may; the package lists are fetched only if the first try fails.
moue_vulkan_install() {
    local sudo=()
    command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        sudo=(sudo -n)
    fi
    local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    "${install[@]}" >/dev/null 2>&1 && return 0
    "${sudo[@]}" apt-get update -qq >/dev/null 2>&1
    "${install[@]}" >/dev/null 2>&1
}

# Without the right to install: the package is unpacked into a folder of ours.
moue_vulkan_unpack() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null && mkdir -p "$moue_vulkan_cache" || return 1
    (cd "$moue_vulkan_cache" && apt-get download -qq chromium-common >/dev/null 2>&1 && dpkg -x chromium-common_*.deb . && rm -f chromium-common_*.deb)
}

moue_vulkan() {
    local moue_vulkan_cache="${XDG_CACHE_HOME:-$HOME/.cache}/moue/swiftshader" icd
    if [ "$(uname -s)" != Linux ]; then
        echo "vulkan: nothing to do on $(uname -s)"
        return 0
    fi
    if ! moue_vulkan_loader && ! moue_vulkan_install libvulkan1; then
        echo "vulkan: the loader libvulkan.so.1 is missing; type: sudo apt-get install libvulkan1 chromium-common" >&2
        return 1
    fi
    if [ -n "${VK_DRIVER_FILES:-}" ] && [ -e "${VK_DRIVER_FILES%%:*}" ]; then
        icd="$VK_DRIVER_FILES"
    elif icd=$(moue_vulkan_hardware); then
        # The loader finds it by itself; software drivers beside it do no harm.
        export MOUE_NEEDS_VULKAN=1
        echo "vulkan: $icd"
        return 0
    elif ! icd=$(moue_vulkan_swiftshader); then
        moue_vulkan_install chromium-common || moue_vulkan_unpack
        if ! icd=$(moue_vulkan_swiftshader); then
            {
                echo "vulkan: no driver for the GPU tests, and it cannot be installed from here. Type, on Debian:"
                echo "    sudo apt-get install libvulkan1 chromium-common"
                echo "or elsewhere, with Chrome's or Chromium's own SwiftShader:"
                echo "    export VK_DRIVER_FILES=/path/to/vk_swiftshader_icd.json"
            } >&2
            return 1
        fi
    fi
    export VK_DRIVER_FILES="$icd" MOUE_NEEDS_VULKAN=1
    echo "vulkan: $icd"
    # A sourced script has set the variables; another has to tell them.
    [ "${BASH_SOURCE[0]}" != "$0" ] || echo "export VK_DRIVER_FILES=$icd MOUE_NEEDS_VULKAN=1"
}

moue_vulkan
