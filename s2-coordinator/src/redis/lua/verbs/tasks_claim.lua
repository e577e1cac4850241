-- tasks_claim <n> <name> <request> <max> <wait>: with the number of a wait, the claim waits where there is nothing.
local function verb()
  local n, request, max, wait = tonumber(ARGV[5]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
  open({ 'session:' .. ARGV[5] })
  begin_queues()
  local grants, session = claim_tasks(n, ARGV[6], request, max)
  if grants then
    return { 'ok', grants }
  elseif grants == nil then
    return session
  elseif wait > 0 then
    wait_to_claim(session, request, max, wait)
  end
  return { wait > 0 and 'waits' or 'ok', {} }
end
