<?php
// The routes of the conformance suite for PHP's built-in server behind the gate:
// PHP_CLI_SERVER_WORKERS=16 master-agent guard -- php -S 127.0.0.1:{port} bench/peers/router.php
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$ms = (int) ($_GET['ms'] ?? 0);
header('Content-Type: text/plain');

function answer(string $body): void
{
    header('Content-Length: ' . strlen($body));
    echo $body;
}

switch ($path) {
    case '/health':
    case '/':
        answer("hello\n");
        break;
    case '/slow':
        usleep($ms * 1000);
        answer("slow\n");
        break;
    case '/stream':
    case '/block':
        echo "first\n";
        flush();
        usleep($ms * 1000);
        echo "last\n";
        break;
    case '/large':
        ini_set('memory_limit', '256M');
        answer(str_repeat('x', 20 * 1024 * 1024));
        break;
    case '/hang':
        sleep(3600);
        break;
    case '/upload':
        answer(strlen(file_get_contents('php://input')) . "\n");
        break;
    default:
        http_response_code(404);
        answer("not found\n");
}
