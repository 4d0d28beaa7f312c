"""Small random encoders of every family, saved with their feature extractors, as folders to load."""

from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="pretrained encoders need the extra `hf`")

_SPEECH: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24},
    **{"conv_dim": (8, 8, 8), "conv_kernel": (10, 3, 3), "conv_stride": (5, 4, 4), "num_feat_extract_layers": 3},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2, "layerdrop": 0.5, "mask_time_prob": 0.5},
}
_LAYER: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_DATA2VEC = {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 3}
_BERT: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24},
    **{"feature_projection_input_dim": 160, "left_max_position_embeddings": 6, "right_max_position_embeddings": 3},
    **{"conv_depthwise_kernel_size": 5, "add_adapter": True, "output_hidden_size": 16},
}
_WHISPER: dict[str, Any] = {
    **{"d_model": 16, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "num_mel_bins": 80},
    **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "vocab_size": 20},
    **{"max_source_positions": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    **{"decoder_start_token_id": 1, "begin_suppress_tokens": None},
}
_AST: dict[str, Any] = {
    **{"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24},
    **{"num_mel_bins": 32, "max_length": 200},
}
_MASKED = {"return_attention_mask": True}
FAMILIES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {  # configuration, extractor
    "wav2vec2": ("Wav2Vec2Config", _SPEECH, "Wav2Vec2FeatureExtractor", {}),
    "wav2vec2-large": ("Wav2Vec2Config", _SPEECH | _LAYER, "Wav2Vec2FeatureExtractor", _MASKED),
    "hubert": ("HubertConfig", _SPEECH, "Wav2Vec2FeatureExtractor", {}),
    "hubert-large": ("HubertConfig", _SPEECH | _LAYER, "Wav2Vec2FeatureExtractor", _MASKED),
    "wavlm": ("WavLMConfig", _SPEECH, "Wav2Vec2FeatureExtractor", {"do_normalize": False}),
    "wavlm-large": ("WavLMConfig", _SPEECH | _LAYER, "Wav2Vec2FeatureExtractor", _MASKED),
    "unispeech-sat": ("UniSpeechSatConfig", _SPEECH, "Wav2Vec2FeatureExtractor", {}),
    "data2vec": ("Data2VecAudioConfig", _SPEECH | _DATA2VEC, "Wav2Vec2FeatureExtractor", _MASKED),
    "conformer": ("Wav2Vec2ConformerConfig", _SPEECH, "Wav2Vec2FeatureExtractor", _MASKED),
    "w2v-bert": ("Wav2Vec2BertConfig", _BERT, "SeamlessM4TFeatureExtractor", {"padding_value": 1}),
    "whisper": ("WhisperConfig", _WHISPER, "WhisperFeatureExtractor", {"chunk_length": 2}),
    "ast": ("ASTConfig", _AST, "ASTFeatureExtractor", {"num_mel_bins": 32, "max_length": 200}),
}


def save(folder: Path, family: str) -> Path:
    """A folder with an encoder of random weights, no two alike, and its feature extractor."""
    kind, values, extractor, options = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(sum(family.encode()))
        model = transformers.AutoModel.from_config(getattr(transformers, kind)(**values))
        for parameter in model.parameters():  # zeros and ones hide errors
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    getattr(transformers, extractor)(**options).save_pretrained(folder)
    return folder
