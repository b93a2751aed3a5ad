import Foundation
import KitText

/// What `python -m export convert` wrote, in the app's folder `model`.
struct Artifact {
    let manifest: Manifest
    let graph: Manifest.Graph
    private let folder: URL

    init(folder: URL) throws {
        self.folder = folder
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        manifest = try decoder.decode(
            Manifest.self, from: Data(contentsOf: folder.appendingPathComponent("manifest.json")))
        // The first .tflite file of the manifest that was put into the folder.
        let found = manifest.graphs.first {
            $0.runtime == "tflite"
                && FileManager.default.fileExists(atPath: folder.appendingPathComponent($0.path).path)
        }
        guard let found else {
            throw ArtifactError("The app's folder model holds none of the .tflite files that its "
                + "manifest.json names. Copy one of the artifact's there.")
        }
        guard manifest.tokenizer.wordpiece else {
            throw ArtifactError("model/manifest.json names a tokenizer other than WordPiece, which this "
                + "app does not have.")
        }
        guard manifest.options.pairs != true else {
            throw ArtifactError("model/manifest.json describes a model of two texts, and this app asks "
                + "for one.")
        }
        graph = found
    }

    var file: String { folder.appendingPathComponent(graph.path).path }

    /// The most tokens that the file takes and the model was trained on.
    var limit: Int { min(graph.length ?? manifest.maxLen, manifest.maxLen) }

    var settings: TokenizerSettings {
        let tokenizer = manifest.tokenizer
        return TokenizerSettings(lowerCase: tokenizer.lowerCase, stripAccents: tokenizer.stripAccents,
                                 marksCase: tokenizer.marksCase)
    }

    var thresholds: [String: Double] {
        Dictionary(uniqueKeysWithValues: zip(manifest.labels, manifest.options.thresholds ?? []))
    }

    func tokenizer() throws -> Tokenizer {
        let vocabulary = try String(contentsOf: folder.appendingPathComponent("vocab.txt"), encoding: .utf8)
        return try Tokenizer(vocabulary: vocabulary, settings: settings)
    }
}

/// What of manifest.json the app reads.
struct Manifest: Decodable {
    let task: String
    let labels: [String]
    let maxLen: Int
    let tokenizer: Tokenizer
    let options: Options
    let graphs: [Graph]

    struct Tokenizer: Decodable {
        let padId: Int32
        let wordpiece: Bool
        let lowerCase: Bool
        let stripAccents: Bool
        let marksCase: Bool
    }

    struct Options: Decodable {
        let pairs: Bool?
        let abstainBelow: Double?
        let thresholds: [Double]?
    }

    struct Graph: Decodable {
        let path: String
        let runtime: String
        let outputs: [String]
        let length: Int?
    }
}

/// What is wrong with the files, and what to do.
struct ArtifactError: LocalizedError {
    let errorDescription: String?

    init(_ message: String) { errorDescription = message }
}
