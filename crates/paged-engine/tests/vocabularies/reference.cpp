// Prints the ids that llama.cpp gives for texts: one line for each text of standard input, which
// are bytes with a little-endian u32 of their count before them. README.md says how to build it.

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "llama-arch.h"
#include "llama-model-loader.h"
#include "llama-vocab.h"

int main(int, char ** argv) {
    std::vector<std::string> splits;
    llama_model_loader loader(nullptr, nullptr, nullptr, argv[1], splits, nullptr, LLAMA_LOAD_MODE_NONE,
                              false, true, false, nullptr, nullptr);
    llama_vocab vocabulary;
    vocabulary.load(loader, LLM_KV(LLM_ARCH_LLAMA));
    uint32_t length;
    while (fread(&length, sizeof length, 1, stdin) == 1) {
        std::string text(length, '\0');
        if (fread(text.data(), 1, length, stdin) != length) {
            return 1;
        }
        const char * between = "";
        for (llama_token id : vocabulary.tokenize(text, true, true)) {
            printf("%s%d", between, id);
            between = " ";
        }
        printf("\n");
    }
}
