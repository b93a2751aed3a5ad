#if canImport(TensorFlowLite)
import Foundation
import KitText
import TensorFlowLite

/// A .tflite file on LiteRT, from token ids to its one output.
final class LiteRTModel {
    private let runner: SignatureRunner
    private let length: Int
    private let padId: Int32
    private let output: String

    init(_ artifact: Artifact) throws {
        guard let length = artifact.graph.length, let output = artifact.graph.outputs.first else {
            throw ArtifactError("model/manifest.json gives \(artifact.graph.path) no length or no output. "
                + "Convert again.")
        }
        self.length = length
        self.output = output
        padId = artifact.manifest.tokenizer.padId
        runner = try Interpreter(modelPath: artifact.file).signatureRunner(with: "serving_default")
    }

    func run(_ ids: [Int32]) throws -> [Float] {
        let rest = length - ids.count
        // By name: in the file the inputs stand in another order.
        try runner.invoke(with: [
            "input_ids": bytes(ids + Array(repeating: padId, count: rest)),
            "attention_mask": bytes(Array(repeating: 1, count: ids.count) + Array(repeating: 0, count: rest)),
            "token_type_ids": bytes(Array(repeating: 0, count: length)),
        ])
        return try runner.output(named: output).data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }

    private func bytes(_ values: [Int32]) -> Data { values.withUnsafeBytes { Data($0) } }
}

/// Names in a text: each word is read at its first piece. Long texts are read in windows.
final class Tagger: Answerer {
    private let artifact: Artifact
    private let tokenizer: Tokenizer
    private let model: LiteRTModel

    init(_ artifact: Artifact) throws {
        self.artifact = artifact
        tokenizer = try artifact.tokenizer()
        model = try LiteRTModel(artifact)
    }

    func answer(_ text: String) throws -> Answer {
        let windows = tokenizer.windows(text, limit: artifact.limit)
        let outputs = try windows.map { try model.run($0.ids) }
        let words = placeWords(windows, skipped: tokenizer.marks)
        let labels = artifact.manifest.labels
        let logits = words.map { word -> [Float] in
            let first = word.token * labels.count
            return Array(outputs[word.window][first..<first + labels.count])
        }
        return .spans(findSpans(labels: labels, text: text, words: words, logits: logits))
    }
}

/// The vector of a text, for search. What is longer than the file reads is cut.
final class Embedder: Answerer {
    private let artifact: Artifact
    private let tokenizer: Tokenizer
    private let model: LiteRTModel

    init(_ artifact: Artifact) throws {
        self.artifact = artifact
        tokenizer = try artifact.tokenizer()
        model = try LiteRTModel(artifact)
    }

    func answer(_ text: String) throws -> Answer {
        .vector(try model.run(tokenizer.encode(text, limit: artifact.limit)))
    }
}
#endif
